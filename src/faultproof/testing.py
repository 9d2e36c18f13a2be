"""For your own tests: `@simulated` runs one in the simulated world, under every fault. See `docs/tutorial.md`."""

from faultproof.prove.proof import Process
from faultproof.prove.simulated.world import Limits
from faultproof.prove.testing.campaign import NothingShown
from faultproof.prove.testing.decorator import simulated
from faultproof.prove.testing.world import SimulatedWorld

__all__ = ["Limits", "NothingShown", "Process", "SimulatedWorld", "simulated"]
