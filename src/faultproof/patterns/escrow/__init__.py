"""Escrow: sell what there is, and no more. Start with `Escrow`; the README says how it works."""

from faultproof.patterns.escrow.audit import Audit
from faultproof.patterns.escrow.escrow import Escrow
from faultproof.patterns.escrow.options import EscrowOptions
from faultproof.patterns.escrow.requests import Hold, Item

__all__ = ["Audit", "Escrow", "EscrowOptions", "Hold", "Item"]
