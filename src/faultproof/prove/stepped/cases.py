"""Which cases belong to which proof."""

from __future__ import annotations

from importlib import import_module

from faultproof.prove.proof import Proof
from faultproof.prove.stepped.case import Case

_ROOM = "faultproof.patterns"
_KERNEL = "faultproof.prove"
_CASES = {
    f"{_ROOM}.outbox.proof:OUTBOX": (f"{_ROOM}.outbox.proof_stepped",),
    f"{_ROOM}.outbox.proof:POISON": (f"{_ROOM}.outbox.proof_stepped_members", f"{_ROOM}.outbox.proof_stepped_lost"),
    f"{_ROOM}.outbox.proof:DEAD_LETTERS": (f"{_ROOM}.outbox.proof_stepped_groups",),
    f"{_ROOM}.outbox.proof:KEYS_GO_ON": (f"{_ROOM}.outbox.proof_stepped_choices",),
    f"{_ROOM}.escrow.proof:ESCROW": (f"{_ROOM}.escrow.proof_stepped",),
    f"{_ROOM}.saga.proof:SAGA": (f"{_ROOM}.saga.proof_stepped",),
    f"{_KERNEL}.kernel.claim:CLAIM": (f"{_KERNEL}.stepped.proof_claims",),
    f"{_KERNEL}.kernel.log:LOG": (f"{_KERNEL}.stepped.proof_log",),
    f"{_KERNEL}.kernel.idempotency:IDEMPOTENCY": (f"{_KERNEL}.stepped.proof_idempotency",),
}
"""Ours; a proof of the user's has the cases of its own module."""


def cases_of(proof: Proof) -> list[Case]:
    """The proof's cases for the stepped world; none where nothing of it is about two sessions at once."""
    module = proof.name.partition(":")[0]
    modules = [import_module(name) for name in _CASES.get(proof.name, (module,))]
    return [each for one in modules for each in vars(one).values() if isinstance(each, Case)]
