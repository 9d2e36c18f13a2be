"""The cluster: endpoints, who of them gets a call, how many calls there are at once, and what retries may add."""

from __future__ import annotations

import math
from typing import Any
from urllib.parse import urlsplit

from faultproof.engines.envoy.routes import ATTEMPT, TIMEOUT, overwritten
from faultproof.engines.envoy.spelling import UPSTREAM, is_ip, named, seconds, socket, typed
from faultproof.engines.envoy.tls import calling
from faultproof.patterns.request_response.policy import Policy
from faultproof.patterns.request_response.toml import Address
from faultproof.patterns.sidecar.options import SidecarFile, SidecarOptions
from faultproof.primitives.deadline import HEADER
from faultproof.primitives.health import HealthPolicy
from faultproof.primitives.outliers import OutlierPolicy

_EXPECTED = "x-envoy-expected-rq-timeout-ms"
_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_MUTATION = "envoy.extensions.filters.http.header_mutation.v3.HeaderMutation"
_PORTS = {"http": 80, "https": 443}
_BALANCERS = {"least-loaded": "LEAST_REQUEST", "round-robin": "ROUND_ROBIN", "ring": "RING_HASH"}


def cluster(file: SidecarFile, room: str | None) -> dict[str, Any]:
    """The one that calls go to. `room`: the directory with the file that secrets are in; None: they stand beside it."""
    policy, options = file.policy, file.sidecar
    parts = [urlsplit(endpoint.url) for endpoint in file.endpoints]
    all_ip = all(is_ip(part.hostname or "") for part in parts)
    found: dict[str, Any] = {
        "name": UPSTREAM,
        "type": "STATIC" if all_ip else "STRICT_DNS",
        "connect_timeout": seconds(policy.attempt_timeout or policy.deadline),
        "lb_policy": _BALANCERS[policy.balance],
        # Nobody is well: then all count as if they were. Envoy would do so when half of them are not.
        # And who is left out is left out now, not up to a second later, in which others may change, too.
        "common_lb_config": {"healthy_panic_threshold": {"value": 1}, "update_merge_window": "0s"},
        "load_assignment": {
            "cluster_name": UPSTREAM,
            "endpoints": [{"lb_endpoints": [_endpoint(each) for each in file.endpoints]}],
        },
        "circuit_breakers": {"thresholds": [_thresholds(policy)]},
        "typed_extension_protocol_options": {_OPTIONS: _protocol(options)},
    }
    if not all_ip:
        found["dns_lookup_family"] = "V4_PREFERRED"
    if policy.balance == "ring":
        found["common_lb_config"]["consistent_hashing_lb_config"] = {
            "hash_balance_factor": math.ceil(round(policy.ring_bound * 100, 6))
        }
    if policy.outliers is not None:
        found["outlier_detection"] = _outliers(policy.outliers)
    if policy.health is not None:
        found["health_checks"] = [_health(policy.health, options.health_path or "/")]
    if parts[0].scheme == "https":
        found["transport_socket"] = calling(file.tls, room)
    return found


def _endpoint(address: Address) -> dict[str, Any]:
    part = urlsplit(address.url)
    host = part.hostname or ""
    return {
        "endpoint": {"address": socket(host, part.port or _PORTS[part.scheme]), "hostname": host},
        "load_balancing_weight": address.weight,
        "metadata": {"filter_metadata": {"faultproof": {"name": address.name}}},
    }


def _thresholds(policy: Policy) -> dict[str, Any]:
    """HTTP/1.1: a call has a connection for itself, so that connections are permits and what waits for one is the queue."""
    permits = queue = policy.calls
    if policy.bulkhead is not None:
        permits, queue = policy.bulkhead.concurrency, policy.bulkhead.queue
    return {
        "max_connections": permits,
        "max_requests": permits,
        "max_pending_requests": queue,
        # Of the calls that are under way; and one, or there would be none where little is called.
        "retry_budget": {"budget_percent": {"value": round(policy.budget.ratio * 100, 6)}, "min_retry_concurrency": 1},
        "track_remaining": True,
    }


def _protocol(options: SidecarOptions) -> dict[str, Any]:
    """HTTP/1.1. Each attempt is told how long somebody waits for it."""
    told = {"mutations": {"request_mutations": [overwritten(HEADER, f"%REQ({_EXPECTED})%"), {"remove": TIMEOUT}]}}
    return typed(
        _OPTIONS,
        {
            "explicit_http_config": {"http_protocol_options": {}},
            "common_http_protocol_options": {"idle_timeout": seconds(options.keep)},
            "http_filters": [
                named("deadline", _MUTATION, told),
                named(ATTEMPT, _MUTATION),
                named(
                    "envoy.filters.http.upstream_codec",
                    "envoy.extensions.filters.http.upstream_codec.v3.UpstreamCodec",
                ),
            ],
        },
    )


def _outliers(policy: OutlierPolicy) -> dict[str, Any]:
    """Only what fails several times in a row: Envoy's comparison of endpoints is by standard deviations, and off."""
    shortest = policy.eject_for * (1 - policy.jitter)
    return {
        "consecutive_5xx": policy.in_a_row,
        "enforcing_consecutive_5xx": 100,
        "enforcing_consecutive_gateway_failure": 0,
        "enforcing_success_rate": 0,
        "enforcing_failure_percentage": 0,
        "interval": seconds(policy.interval),
        "base_ejection_time": seconds(shortest),
        "max_ejection_time": seconds(max(shortest, policy.eject_most * (1 - policy.jitter))),
        "max_ejection_time_jitter": f"{policy.eject_for * policy.jitter:.3f}s",
        "max_ejection_percent": math.floor(round(policy.share * 100, 6)),
    }


def _health(policy: HealthPolicy, path: str) -> dict[str, Any]:
    shortest = policy.interval * (1 - policy.jitter)
    return {
        "timeout": seconds(policy.timeout),
        "interval": seconds(shortest),
        "no_traffic_interval": seconds(shortest),
        "interval_jitter": f"{policy.interval * policy.jitter:.3f}s",
        "healthy_threshold": policy.rise,
        "unhealthy_threshold": policy.fall,
        # What does not answer 200 is counted, and not taken for down at once.
        "http_health_check": {"path": path, "retriable_statuses": [{"start": 100, "end": 600}]},
    }
