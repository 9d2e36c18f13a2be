"""The route table: deadlines, and who may be tried twice."""

from __future__ import annotations

from typing import Any

from faultproof.engines.envoy.spelling import TABLE, UPSTREAM, milliseconds, named, seconds, typed
from faultproof.patterns.request_response.policy import Policy
from faultproof.patterns.sidecar.options import SidecarFile
from faultproof.primitives.deadline import HEADER

IDEMPOTENT_METHODS = "GET|HEAD|OPTIONS|TRACE|PUT|DELETE"
"""RFC 9110, 9.2.2."""
KEY_HEADER = "idempotency-key"
NOTHING_HAPPENED = "connect-failure,refused-stream"
MAYBE_HAPPENED = f"{NOTHING_HAPPENED},reset,retriable-status-codes"
STATUSES = (429, 502, 503, 504)
"""What an endpoint says that cannot answer now. Whatever else it says is its answer."""
TIMEOUT = "x-envoy-upstream-rq-timeout-ms"
_LONG_MS = 10**15

Route = dict[str, Any]
Header = dict[str, Any]


def routes(file: SidecarFile) -> dict[str, Any]:
    """A table with one virtual host. Who has no time left is refused; of the others each is told apart by whether it may be
    made twice and whether its caller waits for less long than the policy does."""
    policy = file.policy
    may_repeat: list[tuple[list[Header], bool]] = [([], True)]
    if not policy.idempotent:
        may_repeat = [
            ([_header(":method", safe_regex={"regex": IDEMPOTENT_METHODS})], True),
            ([{"name": KEY_HEADER, "present_match": True}], True),
            ([], False),
        ]
    found = [_too_late()]
    for has_deadline in (True, False):
        found += [_route(file, headers, repeats, has_deadline) for headers, repeats in may_repeat]
    host = {"name": "all", "domains": ["*"], "routes": found, "include_request_attempt_count": True}
    return {"name": TABLE, "virtual_hosts": [host]}


def _header(name: str, **string_match: Any) -> Header:
    return {"name": name, "string_match": string_match}


def _too_late() -> Route:
    over = {"name": HEADER, "range_match": {"start": -_LONG_MS, "end": 1}}
    body = {"inline_string": "the caller's deadline has passed: nothing was done\n"}
    return {"match": {"prefix": "/", "headers": [over]}, "direct_response": {"status": 504, "body": body}}


def _route(file: SidecarFile, headers: list[Header], repeats: bool, has_deadline: bool) -> Route:
    policy = file.policy
    action: dict[str, Any] = {
        "cluster": UPSTREAM,
        "timeout": seconds(policy.deadline),
        # The one above begins when a call has come whole. Who sends one for ever is cut off by this.
        "max_stream_duration": {"max_stream_duration": seconds(2 * policy.deadline)},
    }
    if (retry := _retry(policy, repeats)) is not None:
        action["retry_policy"] = retry
    if policy.hedge is not None:
        action["hedge_policy"] = {"hedge_on_per_try_timeout": True}
    if policy.balance == "ring":
        assert file.sidecar.key_header is not None  # `mapping.asked` has refused it
        action["hash_policy"] = [{"header": {"header_name": file.sidecar.key_header}}]
    route: Route = {"match": {"prefix": "/", "headers": list(headers)}, "route": action}
    if has_deadline:
        shorter = {"start": 1, "end": max(2, milliseconds(policy.deadline))}
        route["match"]["headers"].append({"name": HEADER, "range_match": shorter})
        route["typed_per_filter_config"] = {"envoy.filters.http.header_mutation": _sooner()}
    return route


def _sooner() -> dict[str, Any]:
    """The caller's own deadline counts. Its header sets Envoy's, which nobody else may set."""
    return typed(
        "envoy.extensions.filters.http.header_mutation.v3.HeaderMutationPerRoute",
        {"mutations": {"request_mutations": [overwritten(TIMEOUT, f"%REQ({HEADER})%")]}},
    )


def overwritten(name: str, value: str) -> dict[str, Any]:
    """A header, whoever has set it before."""
    return {
        "append": {"header": {"key": name, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"},
    }


def _retry(policy: Policy, repeats: bool) -> dict[str, Any] | None:
    """How often, and after what. Envoy counts hedges as retries, and begins one where an attempt's time has passed."""
    attempts, retry, hedge = 1, policy.retry, policy.hedge
    per_try = policy.attempt_timeout
    if retry is not None:
        attempts = retry.attempts
    if hedge is not None:
        attempts, per_try = hedge.attempts, hedge.at_first
    found: dict[str, Any] = {}
    if attempts > 1:
        # Without `retry` nothing is tried again that has failed; the condition is one that no answer fulfils.
        found["retry_on"] = (MAYBE_HAPPENED if repeats else NOTHING_HAPPENED) if retry else "retriable-headers"
        found["num_retries"] = attempts - 1
        if retry and repeats:
            found["retriable_status_codes"] = list(STATUSES)
        if retry:
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
