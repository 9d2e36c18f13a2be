"""A policy file as Envoy's configuration: data in, documents out, nothing is read or started.

What of a policy Envoy has, and what it has not, is in `mapping.py`; here is how it is spelled. The listeners never change
while an Envoy runs. All that policies say is in one route table and one cluster, which Envoy reads again when their files
are replaced, without closing a connection. Source: Envoy's v3 API reference, by the names of the messages below.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from faultproof.engines.envoy import listening
from faultproof.engines.envoy.cluster import cluster
from faultproof.engines.envoy.routes import routes
from faultproof.engines.envoy.spelling import ADMIN, typed
from faultproof.engines.envoy.tls import secret_file, secrets
from faultproof.patterns.sidecar.options import SidecarFile

Document = dict[str, Any]


class Documents(NamedTuple):
    """What an Envoy is given."""

    fixed: Document
    """Listeners, and what else it reads at its start only."""
    moving: Mapping[str, Document]
    """Route table, cluster and secrets, by file name: replaced while it runs."""
    whole: Document
    """All of it in one document, for `envoy --mode validate` and for people."""


def documents(file: SidecarFile, *, room: str, trusted: str) -> Documents:
    """For an Envoy whose files and socket are in the directory `room`. `trusted`: a file of certificates to trust where
    the policy names none. The file must have been through `mapping.asked`."""
    table, service, kept = routes(file), cluster(file, room), secrets(file, trusted)
    moving = {"routes.json": _discovered(table, "route.v3.RouteConfiguration")}
    moving["cluster.json"] = _discovered(service, "cluster.v3.Cluster")
    for secret in kept:  # one in each: Envoy takes no more from a file
        kind = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
        moving[secret_file(secret["name"])] = {"resources": [typed(kind, secret)]}
    return Documents(
        fixed=_bootstrap(file, room, table=None, service=None, kept=[]),
        moving=moving,
        whole=_bootstrap(file, room, table=table, service=cluster(file, None), kept=kept),
    )


def _bootstrap(
    file: SidecarFile, room: str, *, table: Document | None, service: Document | None, kept: list[Document]
) -> Document:
    """With the route table and the cluster in it, or with the files that they are in."""
    resources: Document = {
        "listeners": [listening.calls(file, room, table), listening.admin(file.sidecar)],
        "clusters": [_admin_cluster(room), *([service] if service else [])],
    }
    if kept:
        resources["secrets"] = kept
    document: Document = {
        "node": {"id": "sidecar", "cluster": file.name},
        "admin": {"address": {"pipe": {"path": f"{room}/admin.sock", "mode": 0o600}}},
        "static_resources": resources,
        "overload_manager": {
            "resource_monitors": [
                {
                    "name": "envoy.resource_monitors.global_downstream_max_connections",
                    "typed_config": typed(
                        "envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
                        {"max_active_downstream_connections": file.sidecar.connections},
                    ),
                }
            ]
        },
    }
    if service is None:
        document["dynamic_resources"] = {"cds_config": {"path_config_source": {"path": f"{room}/cluster.json"}}}
    return document


def _admin_cluster(room: str) -> Document:
    return {
        "name": ADMIN,
        "connect_timeout": "1s",
        "load_assignment": {
            "cluster_name": ADMIN,
            "endpoints": [
                {"lb_endpoints": [{"endpoint": {"address": {"pipe": {"path": f"{room}/admin.sock"}}}}]},
            ],
        },
    }


def _discovered(resource: Document, kind: str) -> Document:
    return {"resources": [typed(f"type.googleapis.com/envoy.config.{kind}", resource)]}
