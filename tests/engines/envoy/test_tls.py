"""Endpoints are known by their certificates, callers too where that is asked; and both may be replaced while calls are made."""

import asyncio
import ssl
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from faultproof.engines.envoy.program import check_files
from faultproof.errors import InvalidInput
from tests.engines.envoy.certificates import Pair, authority, signed
from tests.engines.envoy.sidecars import Service, free_port, policy_file, read, running
from tests.fakes import until

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def serving_tls(pair: Pair, ca: Pair):
    """A service that shows a certificate and asks for one."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.cert, pair.key)
    context.load_verify_locations(ca.cert)
    context.verify_mode = ssl.CERT_REQUIRED
    service = Service("tls")
    port = free_port()
    server = await asyncio.start_server(service.serve, "127.0.0.1", port, ssl=context)
    service.url = f"https://127.0.0.1:{port}"
    try:
        yield service
    finally:
        server.close()
        await service.end()


async def test_who_is_called_must_be_who_it_says_and_who_calls_too(tmp_path: Path):
    ca, other = authority(tmp_path), authority(tmp_path, "other")
    service, own, stranger = (
        signed(tmp_path, ca, "a.example"),
        signed(tmp_path, ca, "own"),
        signed(tmp_path, other, "x"),
    )
    ports = free_port(), free_port()
    listening = f'cert = "{own.cert}"\nkey = "{own.key}"\nclient_ca = "{ca.cert}"'

    def file(name: str, trusted: Pair) -> str:
        tls = f'[tls]\nca = "{trusted.cert}"\ncert = "{own.cert}"\nkey = "{own.key}"\nserver_name = "{name}"'
        policy = "[policy]\nbreaker = false\nretry = false"
        return policy_file([upstream.url], f"{policy}\n{tls}", sidecar=listening, ports=ports)

    async with serving_tls(service, ca) as upstream, running(file("a.example", ca)) as sidecar:
        url = f"https://127.0.0.1:{ports[0]}"
        async with _caller(ca, own) as calling:
            assert (await calling.get(url)).status_code == 200
            assert len(upstream.asked) == 1
            for wrong in (file("b.example", ca), file("a.example", other)):
                await sidecar.put(read(wrong))
                assert (await calling.get(url)).status_code == 503
            await sidecar.put(read(file("a.example", ca)))
            assert (await calling.get(url)).status_code == 200
            assert len(upstream.asked) == 2, "nothing was sent to somebody else"
        async with _caller(ca, stranger) as calling:
            with pytest.raises((httpx.TransportError, ssl.SSLError)):
                await calling.get(url)

        # The same names, other certificates.
        signed(tmp_path, other, "own")
        await sidecar.put(read(file("a.example", ca)))
        async with _caller(other, signed(tmp_path, ca, "caller")) as calling:

            async def sees_the_new_one() -> bool:
                try:
                    return bool((await calling.get(url)).status_code)
                except (httpx.TransportError, ssl.SSLError):
                    return False

            await until(sees_the_new_one)


def _caller(ca: Pair, own: Pair) -> httpx.AsyncClient:
    context = ssl.create_default_context(cafile=str(ca.cert))
    context.check_hostname = False
    context.load_cert_chain(own.cert, own.key)
    return httpx.AsyncClient(verify=context)


def test_certificates_that_cannot_be_used_are_refused_before_the_first_call(tmp_path: Path):
    ca = authority(tmp_path)
    one, other = signed(tmp_path, ca, "one"), signed(tmp_path, ca, "two")
    (tmp_path / "garbage.pem").write_text("no PEM")
    for tls, says in (
        (f'cert = "{one.cert}"\nkey = "{other.key}"', "the key is not the certificate's"),
        (f'cert = "{tmp_path}/none.pem"\nkey = "{one.key}"', "tls.cert.*No such file"),
        (f'cert = "{one.cert}"\nkey = "{tmp_path}/none.key"', "tls.key.*No such file"),
        (f'cert = "{tmp_path}/garbage.pem"\nkey = "{one.key}"', "cannot be used"),
        (f'ca = "{tmp_path}/garbage.pem"', "no certificates"),
        (f'ca = "{tmp_path}/none.pem"', "tls.ca.*No such file"),
    ):
        with pytest.raises(InvalidInput, match=says):
            check_files(read(policy_file(["https://a.example"], f"[tls]\n{tls}")))
    with pytest.raises(InvalidInput, match="cannot be written"):
        check_files(read(policy_file(["http://a.example"]).replace('log = "none"', f'log = "{tmp_path}/none/log"')))
