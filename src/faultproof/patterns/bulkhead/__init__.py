"""Bulkhead: what one tenant or dependency uses up, the others do not miss."""

from faultproof.patterns.bulkhead.bulkhead import Bulkhead, BulkheadPolicy
from faultproof.primitives.adaptive import AdaptivePolicy
from faultproof.primitives.compartments import TenantPolicy

__all__ = ["AdaptivePolicy", "Bulkhead", "BulkheadPolicy", "TenantPolicy"]
