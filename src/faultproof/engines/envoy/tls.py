"""Certificates: those of endpoints are always looked at, and our own are shown where somebody asks."""

from __future__ import annotations

from typing import Any

from faultproof.engines.envoy.spelling import (
    LISTENING_CERTIFICATE,
    OWN_CERTIFICATE,
    TRUSTED,
    TRUSTED_CALLERS,
    named,
)
from faultproof.patterns.sidecar.options import SidecarFile, SidecarOptions, TlsFiles

_TLS = "envoy.extensions.transport_sockets.tls.v3"
_OLDEST = {"tls_minimum_protocol_version": "TLSv1_2"}


def calling(files: TlsFiles, room: str | None) -> dict[str, Any]:
    """How an endpoint with `https://` is called: by its name, which its certificate must have."""
    common: dict[str, Any] = {
        "tls_params": _OLDEST,
        "validation_context_sds_secret_config": _secret(TRUSTED, room),
    }
    if files.cert is not None:
        common["tls_certificate_sds_secret_configs"] = [_secret(OWN_CERTIFICATE, room)]
    name = {"auto_host_sni": True} if files.server_name is None else {"sni": files.server_name}
    context = {"common_tls_context": common, "auto_sni_san_validation": True, **name}
    return named("envoy.transport_sockets.tls", f"{_TLS}.UpstreamTlsContext", context)


def listening(options: SidecarOptions, room: str | None) -> dict[str, Any]:
    """How callers are met, where there is a certificate to meet them with."""
    common: dict[str, Any] = {
        "tls_params": _OLDEST,
        "tls_certificate_sds_secret_configs": [_secret(LISTENING_CERTIFICATE, room)],
    }
    context: dict[str, Any] = {"common_tls_context": common}
    if options.client_ca is not None:
        common["validation_context_sds_secret_config"] = _secret(TRUSTED_CALLERS, room)
        context["require_client_certificate"] = True
    return named("envoy.transport_sockets.tls", f"{_TLS}.DownstreamTlsContext", context)


def secrets(file: SidecarFile, trusted: str) -> list[dict[str, Any]]:
    """Which files they are in; Envoy reads those itself, so that no key is in any document of ours."""
    found = []
    tls, options = file.tls, file.sidecar
    if any(endpoint.url.startswith("https:") for endpoint in file.endpoints):
        found.append(_trust(TRUSTED, tls.ca or trusted))
        if tls.cert is not None and tls.key is not None:
            found.append(_certificate(OWN_CERTIFICATE, tls.cert, tls.key))
    if options.cert is not None and options.key is not None:
        found.append(_certificate(LISTENING_CERTIFICATE, options.cert, options.key))
    if options.client_ca is not None:
        found.append(_trust(TRUSTED_CALLERS, options.client_ca))
    return found


def secret_file(name: str) -> str:
    """The name of the document that a secret is in."""
    return f"secret-{name}.json"


def files_of(document: Any) -> list[str]:
    """The names of files in it."""
    if isinstance(document, list):
        return [name for each in document for name in files_of(each)]
    if not isinstance(document, dict):
        return []
    own = [document["filename"]] if "filename" in document else []
    return own + [name for each in document.values() for name in files_of(each)]


def _certificate(name: str, cert: str, key: str) -> dict[str, Any]:
    return {
        "name": name,
        "tls_certificate": {"certificate_chain": {"filename": cert}, "private_key": {"filename": key}},
    }


def _trust(name: str, file: str) -> dict[str, Any]:
    return {"name": name, "validation_context": {"trusted_ca": {"filename": file}}}


def _secret(name: str, room: str | None) -> dict[str, Any]:
    if room is None:
        return {"name": name}
    return {"name": name, "sds_config": {"path_config_source": {"path": f"{room}/{secret_file(name)}"}}}
