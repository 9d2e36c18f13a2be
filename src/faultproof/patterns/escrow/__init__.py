"""Escrow: sell what there is, and no more. Start with `Escrow`; the README says how it works."""

from faultproof.patterns.escrow.audit import StockAudit
from faultproof.patterns.escrow.escrow import Escrow
from faultproof.patterns.escrow.options import EscrowOptions
from faultproof.patterns.escrow.requests import Hold, StockItem

__all__ = ["Escrow", "EscrowOptions", "Hold", "StockAudit", "StockItem"]
