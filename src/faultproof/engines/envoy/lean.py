"""A sidecar without the rest of the package: a script, what `faultproof sidecar` becomes once its file is known to be good.

`import faultproof` brings every pattern, for which a program that lives beside each service has no use. So the package is
entered here by a door of its own: a module of its name that has its directory and not its front. Five megabytes less.
"""

import sys
import types
from pathlib import Path

if __name__ == "__main__":
    package = types.ModuleType("faultproof")
    package.__path__ = [str(Path(__file__).parents[2])]
    sys.modules["faultproof"] = package
    from faultproof.engines.envoy.run import main

    sys.exit(main(*sys.argv[1:]))
