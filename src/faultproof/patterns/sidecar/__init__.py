"""Sidecar: the policy of a client in front of a service in any language, in a proxy that is kept running."""

from faultproof.patterns.sidecar.machine import SupervisorPolicy
from faultproof.patterns.sidecar.options import SidecarFile, SidecarOptions, TlsFiles, sidecar_from_toml
from faultproof.patterns.sidecar.supervisor import Look, Proxy, Supervisor

__all__ = [
    "Look",
    "Proxy",
    "SidecarFile",
    "SidecarOptions",
    "Supervisor",
    "SupervisorPolicy",
    "TlsFiles",
    "sidecar_from_toml",
]
