"""What every durable pattern stands on, and the proof of each; not patterns, so the specification does not list them."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Mechanism:
    """A part of the kernel. `proof` names its executable proof as `module:object`."""

    name: str
    provides: str
    proof: str


KERNEL: tuple[Mechanism, ...] = (
    Mechanism(
        name="claim",
        provides="leased work: who may act, shown by a fencing token",
        proof="faultproof.prove.kernel.claim:CLAIM",
    ),
    Mechanism(
        name="log",
        provides="an order of committed events that a reader's cursor cannot skip",
        proof="faultproof.prove.kernel.log:LOG",
    ),
    Mechanism(
        name="idempotency",
        provides="the first answer to whoever asks again",
        proof="faultproof.prove.kernel.idempotency:IDEMPOTENCY",
    ),
)
