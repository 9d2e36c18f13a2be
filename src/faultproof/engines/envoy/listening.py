"""Where calls come in: one listener for them, and one for those who ask how the sidecar does."""

from __future__ import annotations

from typing import Any

from faultproof.engines.envoy.routes import SOONER
from faultproof.engines.envoy.spelling import ADMIN, TABLE, named, seconds, socket, typed
from faultproof.engines.envoy.tls import listening
from faultproof.patterns.sidecar.options import SidecarFile, SidecarOptions, place

_HTTP = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
_FIELDS = {
    "time": "%START_TIME%",
    "method": "%REQ(:METHOD)%",
    "host": "%REQ(:AUTHORITY)%",
    "path": "%PATH(NQ)%",
    "status": "%RESPONSE_CODE%",
    "why": "%RESPONSE_CODE_DETAILS%",
    "flags": "%RESPONSE_FLAGS%",
    "ms": "%DURATION%",
    "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
    "endpoint": "%UPSTREAM_HOST%",
    "bytes_in": "%BYTES_RECEIVED%",
    "bytes_out": "%BYTES_SENT%",
    "caller": "%DOWNSTREAM_REMOTE_ADDRESS%",
    "request": "%REQ(X-REQUEST-ID)%",
}
"""Of each call; no query, no header but these, no body: secrets travel in them."""
HEADERS_TIMEOUT_S = 10.0
IDLE_TIMEOUT_S = 300.0


def calls(file: SidecarFile, room: str, table: dict[str, Any] | None) -> dict[str, Any]:
    """The listener for calls. `table`: its routes; None: they are in a file in `room`."""
    options = file.sidecar
    manager: dict[str, Any] = {
        "stat_prefix": "calls",
        # Who calls is who the connection is from, whatever a header says; Envoy's own headers, which could change a policy,
        # are taken off.
        "use_remote_address": True,
        "preserve_external_request_id": True,
        "server_header_transformation": "PASS_THROUGH",
        "request_headers_timeout": seconds(HEADERS_TIMEOUT_S),
        "common_http_protocol_options": {"idle_timeout": seconds(IDLE_TIMEOUT_S)},
        "access_log": _access_log(options.log),
        "http_filters": [
            named(
                SOONER,
                "envoy.extensions.filters.http.header_mutation.v3.HeaderMutation",
            ),
            named("envoy.filters.http.router", "envoy.extensions.filters.http.router.v3.Router"),
        ],
    }
    if table is None:
        source = {"path_config_source": {"path": f"{room}/routes.json"}}
        manager["rds"] = {"route_config_name": TABLE, "config_source": source}
    else:
        manager["route_config"] = table
    chain: dict[str, Any] = {"filters": [named("envoy.filters.network.http_connection_manager", _HTTP, manager)]}
    if options.cert is not None:
        chain["transport_socket"] = listening(options, None if table else room)
    return {
        "name": "calls",
        "traffic_direction": "INBOUND",  # apart from the other one: it is closed alone
        "address": socket(*place("address", options.address)),
        "filter_chains": [chain],
        "per_connection_buffer_limit_bytes": 1_048_576,
    }


def admin(options: SidecarOptions) -> dict[str, Any]:
    """`/ready` and `/metrics`, and nothing else: Envoy's admin interface can end it, and show what it knows."""
    paths = {"/ready": "/ready", "/metrics": "/stats/prometheus"}
    routes = [
        {
            "match": {"path": path, "headers": [{"name": ":method", "string_match": {"exact": "GET"}}]},
            "route": {"cluster": ADMIN, "prefix_rewrite": there},
        }
        for path, there in paths.items()
    ]
    manager = {
        "stat_prefix": "admin",
        "request_headers_timeout": seconds(HEADERS_TIMEOUT_S),
        "route_config": {"name": ADMIN, "virtual_hosts": [{"name": ADMIN, "domains": ["*"], "routes": routes}]},
        "http_filters": [named("envoy.filters.http.router", "envoy.extensions.filters.http.router.v3.Router")],
    }
    return {
        "name": ADMIN,
        "address": socket(*place("admin", options.admin)),
        "filter_chains": [{"filters": [named("envoy.filters.network.http_connection_manager", _HTTP, manager)]}],
        # Who asks how it does is answered also when there are too many callers.
        "ignore_global_conn_limit": True,
    }


def _access_log(where: str) -> list[dict[str, Any]]:
    if where == "none":
        return []
    form = {"log_format": {"json_format": _FIELDS}}
    if where == "stdout":
        kind = "envoy.extensions.access_loggers.stream.v3.StdoutAccessLog"
        return [named("envoy.access_loggers.stdout", kind, form)]
    kind = "envoy.extensions.access_loggers.file.v3.FileAccessLog"
    return [{"name": "envoy.access_loggers.file", "typed_config": typed(kind, {"path": where, **form})}]
