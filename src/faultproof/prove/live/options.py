"""How a proof is run live: every option with its unit and bound, checked when it is built."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from faultproof import bounds
from faultproof.prove.live.orders import Order
from faultproof.prove.live.protocol import Mutation


@dataclass(frozen=True, kw_only=True)
class LiveOptions:
    """How hard to try, and how long at most. Times in seconds."""

    plant: str | None = None
    """A planted bug to run with; it must be caught, and the first violation ends it."""
    mutation: Mutation | None = None
    """What is left out of the scripts, as `mutants.living.mutation` makes it of a mutant; the first violation ends it."""
    points: int | None = None
    """At how many of the distinct points to kill; None: at each of them."""
    stops: int = 12
    """Points at which a process is stopped for longer than its leases, replaced, and continued."""
    kills: int = 6
    """SIGKILLs from outside, at random times."""
    network: int = 6
    """Runs through the proxy (PostgreSQL): of dropped answers to a COMMIT, and of orphans, so many each; and two of each
    other fault."""
    server_kills: int = 2
    """kill -9 of the server, where the prover has started it itself."""
    orders: tuple[Order, ...] | None = None
    """Only these, instead of a plan: to repeat a run."""
    command: tuple[str, ...] | None = None
    """A service of the user's that is started for every process, instead of the proof's main functions. It has no numbered
    points: it is killed at random times."""
    allow_remote: bool = False
    """Use a database on another machine."""
    seed: int = 0
    """Of all that is drawn at random."""
    seconds: float = 600.0
    """For all runs together; those that are not begun by then are reported as not run."""
    run_s: float = 30.0
    """For one run: its work must be done by then."""
    freeze_s: float = 1.5
    """How long a stopped process sleeps: longer than every lease of the proof."""
    parallel: int = 6
    """Runs at the same time; fewer, where the server has not the connections."""
    keep: Path | None = None
    """Where histories are kept, an existing directory: of all violations, and of the undisturbed run."""

    def __post_init__(self) -> None:
        for name, most in (("stops", 10_000), ("kills", 10_000), ("network", 1_000), ("server_kills", 100)):
            bounds.count(name, getattr(self, name), least=0, most=most)
        if self.points is not None:
            bounds.count("points", self.points, least=0)
        bounds.count("parallel", self.parallel, most=64)
        bounds.seconds("seconds", self.seconds)
        bounds.seconds("run_s", self.run_s)
        bounds.seconds("freeze_s", self.freeze_s)
        bounds.count("seed", self.seed, least=0, most=2**31)


RESTARTS_MAX = 200
"""Of all processes of a run, so that one that dies at once does not fork for ever."""
RESTART_S = 0.02
"""From a death to the next life; it doubles each time a process dies by itself, up to a second."""
GRACE_S = 1.0
"""How long a run whose work is done still waits for its fault to strike, and a zombie to do what harm it can."""
HEAL_S = 1.0
"""How long `eventually` may take to hold once all work is done."""
JUDGE_S = 0.1
"""Between two looks at what must hold always."""
