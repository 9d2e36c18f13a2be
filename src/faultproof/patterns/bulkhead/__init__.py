"""Bulkhead: what one tenant or dependency uses up, the others do not miss."""

from faultproof.patterns.bulkhead.bulkhead import Bulkhead, BulkheadPolicy

__all__ = ["Bulkhead", "BulkheadPolicy"]
