"""Request-Response: one client between a caller and what it depends on; and sessions, whose requests have one effect each.

Start with `Client`, and where order or a single effect matters with `ClientSession` here and `Idempotent` there.
"""

from faultproof.patterns.request_response.client import Client, Result
from faultproof.patterns.request_response.deadlines import Deadlines
from faultproof.patterns.request_response.exchanges import AiohttpExchange, HttpxExchange, httpx_transport
from faultproof.patterns.request_response.headers import Envelope
from faultproof.patterns.request_response.http import Answer, Http
from faultproof.patterns.request_response.idempotent import Idempotent, IdempotentOptions
from faultproof.patterns.request_response.judging import Understood
from faultproof.patterns.request_response.keyed import Keyed
from faultproof.patterns.request_response.policy import Budget, Policy
from faultproof.patterns.request_response.session import ClientSession, SessionOptions
from faultproof.patterns.request_response.toml import Address, Upstream, upstream_from_toml

__all__ = [
    "Address",
    "AiohttpExchange",
    "Answer",
    "Budget",
    "Client",
    "ClientSession",
    "Deadlines",
    "Envelope",
    "Http",
    "HttpxExchange",
    "Idempotent",
    "IdempotentOptions",
    "Keyed",
    "Policy",
    "Result",
    "SessionOptions",
    "Understood",
    "Upstream",
    "httpx_transport",
    "upstream_from_toml",
]
