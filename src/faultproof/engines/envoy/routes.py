"""The route table: deadlines, and who may be tried twice."""

from __future__ import annotations

from typing import Any, NamedTuple

from faultproof.engines.envoy.spelling import TABLE, UPSTREAM, milliseconds, named, seconds, typed
from faultproof.patterns.request_response.policy import Policy
from faultproof.patterns.sidecar.options import SidecarFile
from faultproof.primitives import attempts
from faultproof.primitives.deadline import HEADER

IDEMPOTENT_METHODS = "GET|HEAD|OPTIONS|TRACE|PUT|DELETE"
"""RFC 9110, 9.2.2."""
KEY_HEADER = "idempotency-key"
NOT_NOW = (408, 425, 429, 503)
"""By which an endpoint says that it has not done it, and may later; as in a client."""
UNKNOWN = (500, 502, 504)
"""By which nobody knows."""
ATTEMPT = "attempt-of"
"""The name of what tells each attempt which one it is, so that routes can say of how many."""
_NOTHING_HAPPENED = "connect-failure,refused-stream,retriable-status-codes"
_MAYBE_HAPPENED = f"{_NOTHING_HAPPENED},reset"
_NO_ANSWER = "retriable-headers"
"""With none given: what no answer fulfils."""
_REPEATED_ABOVE = r"([2-9]|[1-9][0-9]+)(/[0-9]+)?|1/([2-9]|[1-9][0-9]+)"
"""`attempt: 1/3`, or any but the first: somebody above repeats, so we do not."""
TIMEOUT = "x-envoy-upstream-rq-timeout-ms"
SOONER = "caller-deadline"
"""The name of what makes a caller's own deadline count."""
_LONG_MS = 10**15

Route = dict[str, Any]
Header = dict[str, Any]


class _Kind(NamedTuple):
    """Calls that are tried again for the same reasons."""

    headers: list[Header]
    """What they have, that no kind before has."""
    may_be_twice: bool
    is_above: bool = False
    """Somebody above repeats them."""


def routes(file: SidecarFile) -> dict[str, Any]:
    """A table with one virtual host. Who has no time left is refused; of the others each is told apart by whether it may be
    made twice and whether its caller waits for less long than the policy does."""
    policy = file.policy
    kinds = [_Kind([_header(attempts.HEADER, safe_regex={"regex": _REPEATED_ABOVE})], policy.idempotent, is_above=True)]
    if not policy.idempotent:
        kinds += [
            _Kind([_header(":method", safe_regex={"regex": IDEMPOTENT_METHODS})], True),
            _Kind([{"name": KEY_HEADER, "present_match": True}], True),
        ]
    kinds.append(_Kind([], policy.idempotent))
    found = [_too_late()]
    for has_deadline in (True, False):
        found += [_route(file, kind, has_deadline) for kind in kinds]
    host = {"name": "all", "domains": ["*"], "routes": found, "include_request_attempt_count": True}
    return {"name": TABLE, "virtual_hosts": [host]}


def _header(name: str, **string_match: Any) -> Header:
    return {"name": name, "string_match": string_match}


def _too_late() -> Route:
    over = {"name": HEADER, "range_match": {"start": -_LONG_MS, "end": 1}}
    body = {"inline_string": "the caller's deadline has passed: nothing was done\n"}
    return {"match": {"prefix": "/", "headers": [over]}, "direct_response": {"status": 504, "body": body}}


def _route(file: SidecarFile, kind: _Kind, has_deadline: bool) -> Route:
    policy = file.policy
    action: dict[str, Any] = {
        "cluster": UPSTREAM,
        "timeout": seconds(policy.deadline),
        # The one above begins when a call has come whole. Who sends one for ever is cut off by this.
        "max_stream_duration": {"max_stream_duration": seconds(2 * policy.deadline)},
    }
    if (retry := _retry(policy, kind)) is not None:
        action["retry_policy"] = retry
    if policy.hedge is not None:
        action["hedge_policy"] = {"hedge_on_per_try_timeout": True}
    if policy.balance == "ring":
        assert file.sidecar.key_header is not None  # `mapping.asked` has refused it
        action["hash_policy"] = [{"header": {"header_name": file.sidecar.key_header}}]
    route: Route = {"match": {"prefix": "/", "headers": list(kind.headers)}, "route": action}
    route["typed_per_filter_config"] = filters = {}
    if not kind.is_above:
        filters[ATTEMPT] = _mutation(overwritten(attempts.HEADER, _numbered(policy, retry or {})))
    if has_deadline:
        shorter = {"start": 1, "end": max(2, milliseconds(policy.deadline))}
        route["match"]["headers"].append({"name": HEADER, "range_match": shorter})
        # The caller's own deadline counts. Its header sets Envoy's, which nobody else may set.
        filters[SOONER] = _mutation(overwritten(TIMEOUT, f"%REQ({HEADER})%"))
    return route


def _numbered(policy: Policy, retry: dict[str, Any]) -> str:
    """As `attempts.Attempt.header` spells it; hedges are the same try, and nobody repeats for them."""
    most = retry.get("num_retries", 0) + 1 if policy.retry else 1
    return f"%REQ(x-envoy-attempt-count)%/{most}" if most > 1 else "1"


def _mutation(change: dict[str, Any]) -> dict[str, Any]:
    return typed(
        "envoy.extensions.filters.http.header_mutation.v3.HeaderMutationPerRoute",
        {"mutations": {"request_mutations": [change]}},
    )


def overwritten(name: str, value: str) -> dict[str, Any]:
    """A header, whoever has set it before."""
    return {
        "append": {"header": {"key": name, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"},
    }


def _retry(policy: Policy, kind: _Kind) -> dict[str, Any] | None:
    """How often, and after what. Envoy counts hedges as retries, and begins one where an attempt's time has passed."""
    most, per_try = 1, policy.attempt_timeout
    retry, hedge = None if kind.is_above else policy.retry, policy.hedge
    if retry is not None:
        most = retry.attempts
    if hedge is not None:
        most, per_try = hedge.attempts, hedge.at_first
    found: dict[str, Any] = {}
    if most > 1:
        found["retry_on"] = _NO_ANSWER
        found["num_retries"] = most - 1
        if retry is not None:
            found["retry_on"] = _MAYBE_HAPPENED if kind.may_be_twice else _NOTHING_HAPPENED
            found["retriable_status_codes"] = sorted(NOT_NOW + UNKNOWN if kind.may_be_twice else NOT_NOW)
            found |= _waits(retry.base, retry.cap, policy.deadline)
        found["retry_host_predicate"] = [
            named(
                "envoy.retry_host_predicates.previous_hosts",
                "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate",
            )
        ]
        found["host_selection_retry_max_attempts"] = 5
    if per_try is not None:
        found["per_try_timeout"] = seconds(per_try)
    return found or None


def _waits(base: float, cap: float, deadline: float) -> dict[str, Any]:
    return {
        "retry_back_off": {"base_interval": seconds(base), "max_interval": seconds(max(base, cap))},
        "rate_limited_retry_back_off": {
            "reset_headers": [{"name": "retry-after", "format": "SECONDS"}],
            "max_interval": seconds(deadline),
        },
    }
