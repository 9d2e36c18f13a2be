"""Request-Response: one client between a caller and what it depends on."""

from faultproof.patterns.request_response.client import Client, Result
from faultproof.patterns.request_response.policy import Budget, Policy
from faultproof.patterns.request_response.toml import Address, Upstream, upstream_from_toml

__all__ = ["Address", "Budget", "Client", "Policy", "Result", "Upstream", "upstream_from_toml"]
