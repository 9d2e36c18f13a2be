"""Request-Response: one client between a caller and what it depends on."""

from faultproof.patterns.request_response.client import Client, Result
from faultproof.patterns.request_response.exchanges import AiohttpExchange, HttpxExchange, httpx_transport
from faultproof.patterns.request_response.http import Answer, Http
from faultproof.patterns.request_response.policy import Budget, Policy
from faultproof.patterns.request_response.toml import Address, Upstream, upstream_from_toml

__all__ = [
    "Address",
    "AiohttpExchange",
    "Answer",
    "Budget",
    "Client",
    "Http",
    "HttpxExchange",
    "Policy",
    "Result",
    "Upstream",
    "httpx_transport",
    "upstream_from_toml",
]
