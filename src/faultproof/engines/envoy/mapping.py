"""What of a policy Envoy has, nearly has, and has not: one line for each field of each part, and nothing is left out.

What is written in the policy file is in force, or the file is refused with what to write instead. What is not written has
the default that it has in a client, where Envoy has it; where not, `asked` says so, and the sidecar at each start.
`tests/engines/envoy/test_mapping.py` goes over all fields: a new one without a line here fails.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any
from urllib.parse import urlsplit

from faultproof.engines.envoy.spelling import is_ip
from faultproof.errors import InvalidInput
from faultproof.patterns.bulkhead import BulkheadPolicy
from faultproof.patterns.request_response.policy import Budget, Policy
from faultproof.patterns.request_response.toml import Address
from faultproof.patterns.sidecar.options import SidecarFile, SidecarOptions, TlsFiles
from faultproof.primitives.health import HealthPolicy
from faultproof.primitives.hedging import HedgePolicy
from faultproof.primitives.outliers import OutlierPolicy
from faultproof.primitives.retry import Backoff


@dataclass(frozen=True)
class Same:
    """Envoy does this."""

    how: str
    """By which of its fields."""


@dataclass(frozen=True)
class Nearly:
    """Envoy does nearly this."""

    how: str
    but: str
    """The difference."""


@dataclass(frozen=True)
class Absent:
    """Envoy does not do this: it is refused where it is written."""

    why: str
    """What Envoy has not, and what to write instead."""
    default: str | None = None
    """What its default would do in a client, and is not done here; None: nothing."""


Line = Same | Nearly | Absent

ITSELF = Same("its parts are below")

TABLE: Mapping[type, Mapping[str, Line]] = {
    SidecarFile: {
        "endpoints": ITSELF,
        "policy": ITSELF,
        "name": Same("node.cluster"),
        "sidecar": ITSELF,
        "tls": ITSELF,
    },
    Address: {
        "name": Same("metadata, in its admin interface"),
        "url": Same("endpoint.address; https: transport_socket"),
        "weight": Nearly(
            "load_balancing_weight", "with least-loaded and unequal weights it goes by turns, fewer for who is busy"
        ),
    },
    Policy: {
        "deadline": Nearly(
            "route.timeout", "it begins when a call has come whole; until then a call may take as long again"
        ),
        "calls": Nearly("circuit_breakers", "it bounds attempts under way and waiting, not calls between two attempts"),
        "idempotent": Same("a retry policy for each route; GET, HEAD, OPTIONS, TRACE, PUT, DELETE and idempotency-key"),
        "retry": ITSELF,
        "hedge": ITSELF,
        "budget": ITSELF,
        "balance": Nearly("lb_policy", "least-loaded goes by calls under way, not by latency"),
        "ring_bound": Same("consistent_hashing_lb_config.hash_balance_factor, in hundredths"),
        "breaker": Absent(
            "Envoy has no breaker for each endpoint: say `breaker = false`; `outliers` leaves out who fails in a row",
            default="no breaker for each endpoint",
        ),
        "outliers": ITSELF,
        "health": ITSELF,
        "bulkhead": ITSELF,
        "attempt_timeout": Same("retry_policy.per_try_timeout"),
    },
    Backoff: {
        "attempts": Same("retry_policy.num_retries"),
        "base": Nearly(
            "retry_back_off.base_interval", "a millisecond at least; the n-th wait is up to (2^n - 1) times it"
        ),
        "cap": Same("retry_back_off.max_interval"),
    },
    HedgePolicy: {
        "quantile": Absent(
            "Envoy learns no quantile: leave `hedge.quantile` out, and `hedge.at_first` is the delay for good",
            default="the hedge's delay is not learnt, it stays at `at_first`",
        ),
        "at_first": Same("retry_policy.per_try_timeout with hedge_on_per_try_timeout"),
        "least": Same("`at_first` is the delay, and not shorter than this"),
        "attempts": Same("retry_policy.num_retries"),
    },
    Budget: {
        "ratio": Nearly(
            "retry_budget.budget_percent",
            "a share of the calls under way, not of those that came; one retry may always be",
        ),
        "burst": Absent(
            "Envoy keeps no retries for later: leave `budget.burst` out",
            default="no retries are kept for later",
        ),
    },
    OutlierPolicy: {
        "in_a_row": Nearly("outlier_detection.consecutive_5xx", "every 5xx counts, 501 and 505 too"),
        "gap": Absent(
            "Envoy compares endpoints by standard deviations only: leave `outliers.gap` out, `in_a_row` remains",
            default="endpoints are not compared with each other",
        ),
        "interval": Same("outlier_detection.interval: how often is looked whose time is over"),
        "minimum_calls": Absent("it belongs to `outliers.gap`, which Envoy has not: leave it out"),
        "share": Same("outlier_detection.max_ejection_percent"),
        "eject_for": Nearly("outlier_detection.base_ejection_time", "the n-th time n times as long, not 2^(n-1) times"),
        "eject_most": Same("outlier_detection.max_ejection_time"),
        "jitter": Nearly("outlier_detection.max_ejection_time_jitter", "of `eject_for`, however often it was ejected"),
    },
    HealthPolicy: {
        "interval": Same("health_checks.interval"),
        "jitter": Same("health_checks.interval_jitter"),
        "timeout": Same("health_checks.timeout"),
        "rise": Nearly("health_checks.healthy_threshold", "the first answer after a start is enough"),
        "fall": Same("health_checks.unhealthy_threshold"),
    },
    BulkheadPolicy: {
        "concurrency": Same("circuit_breakers.max_connections, max_requests"),
        "queue": Same("circuit_breakers.max_pending_requests"),
        "wait": Nearly("route.timeout", "calls wait for a permit until their deadline"),
        "patience": Absent("Envoy has no priorities: leave `bulkhead.patience` out"),
        "tenants": Absent("Envoy has no tenants: leave `bulkhead.tenants` out, or give each a sidecar of its own"),
        "others": Absent("Envoy has no tenants: leave `bulkhead.others` out"),
        "adaptive": Absent(
            "Envoy's adaptive concurrency goes by a gradient of latencies, not by these: leave `bulkhead.adaptive` out"
        ),
    },
    SidecarOptions: {
        "address": Same("listener.address"),
        "public": Same("refused here where it is not said"),
        "admin": Same("a listener with /ready and /metrics"),
        "cert": Same("DownstreamTlsContext"),
        "key": Same("DownstreamTlsContext"),
        "client_ca": Same("DownstreamTlsContext.require_client_certificate"),
        "health_path": Same("http_health_check.path"),
        "key_header": Same("route.hash_policy"),
        "keep": Same("HttpProtocolOptions.idle_timeout"),
        "connections": Same("overload_manager, global_downstream_max_connections"),
        "workers": Same("--concurrency"),
        "linger": Same("the supervisor does it"),
        "drain": Same("the supervisor does it"),
        "log": Same("access_log, a JSON document for each call"),
    },
    TlsFiles: {
        "ca": Same("UpstreamTlsContext, validation_context.trusted_ca"),
        "cert": Same("UpstreamTlsContext, tls_certificates"),
        "key": Same("UpstreamTlsContext, tls_certificates"),
        "server_name": Same("UpstreamTlsContext.sni, and the certificate must be for it"),
    },
}


@dataclass(frozen=True)
class Notes:
    """What is not as in a client, of what a file asks for."""

    left_out: dict[str, str]
    """Defaults that are not in force, by their names."""
    different: dict[str, str]
    """What is in force, and how it differs."""


def asked(file: SidecarFile, written: frozenset[str]) -> Notes:
    """What Envoy makes of it. Raises `InvalidInput` that names what it has not."""
    notes = Notes({}, {})
    _walk(file, "", written, notes)
    _check_endpoints(file)
    _check_parts(file, written, notes)
    return notes


def _walk(part: Any, where: str, written: frozenset[str], notes: Notes) -> None:
    for field in fields(part):
        name, value = f"{where}.{field.name}" if where else field.name, getattr(part, field.name)
        match TABLE[type(part)][field.name]:
            case Absent(why, default):
                if name in written:
                    raise InvalidInput(f"`{name}` cannot be in force here: {why}")
                if default is not None and value is not None:
                    notes.left_out[name] = default
            case Nearly(_, but) if value is not None:
                notes.different[name] = but
            case _:
                pass
        if is_dataclass(value) and type(value) in TABLE:
            _walk(value, name, written, notes)


def _check_endpoints(file: SidecarFile) -> None:
    schemes = set()
    names = [endpoint.name for endpoint in file.endpoints]
    for endpoint in file.endpoints:
        if names.count(endpoint.name) > 1:
            raise InvalidInput(f"`endpoints` must be named differently, {endpoint.name!r} is there twice")
        if not endpoint.url:
            raise InvalidInput(f"the endpoint {endpoint.name!r} has no `url`")
        part = urlsplit(endpoint.url)
        host = part.hostname or ""
        if part.scheme not in ("http", "https"):
            raise InvalidInput(f"the endpoint {endpoint.name!r} is {endpoint.url}: a sidecar calls http:// or https://")
        if part.path not in ("", "/") or part.query or part.fragment or "@" in part.netloc:
            raise InvalidInput(
                f"the endpoint {endpoint.name!r} must be a scheme, a host and a port: each call brings its own path"
            )
        if part.scheme == "https" and is_ip(host) and file.tls.server_name is None:
            raise InvalidInput(
                f"the endpoint {endpoint.name!r} is https:// at an IP address: say in `tls.server_name` whose certificate "
                "it must show"
            )
        schemes.add(part.scheme)
    if len(schemes) > 1:
        raise InvalidInput("endpoints must be all http:// or all https://: they are one service")
    if "https" not in schemes and file.tls != TlsFiles():
        raise InvalidInput("`tls` says how https:// endpoints are called, and there are none: leave it out")


def _check_parts(file: SidecarFile, written: frozenset[str], notes: Notes) -> None:
    """What Envoy has, and not together."""
    policy, options = file.policy, file.sidecar
    _needs("policy.health", policy.health, "sidecar.health_path", options.health_path)
    ring = policy.balance if policy.balance == "ring" else None
    _needs('policy.balance = "ring"', ring, "sidecar.key_header", options.key_header)
    if ring is None and "policy.ring_bound" in written:
        raise InvalidInput('`policy.ring_bound` belongs to `balance = "ring"`: leave it out')
    _check_hedge(policy, written, notes)
    bulkhead = policy.bulkhead
    if bulkhead is None:
        return
    if "policy.bulkhead.wait" in written and bulkhead.wait < policy.deadline:
        raise InvalidInput(
            f"`policy.bulkhead.wait` is {bulkhead.wait:g} s, and in Envoy calls wait until their deadline, "
            f"{policy.deadline:g} s: leave it out, or give it as much"
        )
    if bulkhead.queue < bulkhead.concurrency:
        raise InvalidInput(
            f"`policy.bulkhead.queue` is {bulkhead.queue}: in Envoy a call whose connection is being opened waits, too, so "
            f"that it must be at least `concurrency`, {bulkhead.concurrency}"
        )
    whole = bulkhead.concurrency + bulkhead.queue
    if policy.calls < whole:
        raise InvalidInput(
            f"`policy.calls` is {policy.calls}, and Envoy has no bound but the bulkhead's, {bulkhead.concurrency} permits and "
            f"{bulkhead.queue} that wait: give `calls` at least {whole}, or the bulkhead less"
        )


def _check_hedge(policy: Policy, written: frozenset[str], notes: Notes) -> None:
    hedge, retry = policy.hedge, policy.retry
    if hedge is None:
        return
    if hedge.at_first is None:
        raise InvalidInput("`policy.hedge` needs `at_first`: Envoy learns no delay, so say after how long to hedge")
    if policy.attempt_timeout is not None:
        raise InvalidInput(
            "`policy.attempt_timeout` and `policy.hedge`: Envoy has one time for both, after which it hedges: leave "
            "`attempt_timeout` out"
        )
    if retry is not None and retry.attempts != hedge.attempts:
        if "policy.retry.attempts" in written:
            raise InvalidInput(
                f"`policy.retry.attempts` is {retry.attempts} and `policy.hedge.attempts` is {hedge.attempts}: Envoy counts "
                "both together: give them the same number, or say `retry = false`"
            )
        notes.left_out["policy.retry.attempts"] = (
            f"retries and hedges together make at most {hedge.attempts} attempts, as `hedge.attempts` says"
        )


def _needs(option: str, given: object, other: str, of_other: object) -> None:
    if given is not None and of_other is None:
        raise InvalidInput(f"`{option}` needs `{other}`")
    if given is None and of_other is not None:
        raise InvalidInput(f"`{other}` belongs to `{option}`, which is not there: leave it out, or write that")
