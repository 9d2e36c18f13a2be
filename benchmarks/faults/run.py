"""Carrying a trial out: a server of its own, a process for each worker that is started again whenever it ends, a judge."""

from __future__ import annotations

import asyncio
import secrets
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import faultproof as fp
from benchmarks.faults.crew import Crew
from benchmarks.faults.judging import Findings, effects, findings, proof_of, strikes
from benchmarks.faults.model import Contender, Trial
from faultproof.prove.harness import HarnessError
from faultproof.prove.proof import Proof
from faultproof.shop.postgres_server import PostgresServer

LOOK_S = 0.1
Progress = Callable[[str], object]


@dataclass(kw_only=True)
class Report:
    """What one trial of one contender came to."""

    contender: str
    version: str
    configured: str
    promise: str
    trial: Trial
    verdict: str = "held"
    """Held, violated, or inconclusive."""
    wrong: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    """What should have happened, and did not."""
    findings: Findings | None = None
    killed: int = 0
    """Processes that SIGKILL ended, as their parent saw it."""
    crashed: int = 0
    """Processes that ended by themselves."""
    last_words: str = ""
    """Of the last one that did."""
    server_kills: int = 0
    seconds: float = 0.0


class _Looked:
    """Evidence from the database as it is now."""

    notes: Sequence[tuple[Any, ...]] = ()
    outside: Mapping[str, Any] = {}

    def __init__(self, url: str) -> None:
        import psycopg

        self._raw = psycopg.connect(url, autocommit=True)

    def fetch(self, sql: str) -> list[tuple[Any, ...]]:
        return self._raw.execute(sql.encode()).fetchall()

    def close(self) -> None:
        """Let go of the database."""
        self._raw.close()


@contextmanager
def own_server() -> Iterator[PostgresServer]:
    """A server for trials; nothing of it is left."""
    with PostgresServer(settings={"max_connections": "300"}) as server:
        yield server


def tried(
    contender: Contender,
    trial: Trial,
    server: PostgresServer,
    *,
    seconds: float,
    progress: Progress = lambda said: None,
) -> Report:
    """Carry it out, in a database of its own. Raises `HarnessError` where it cannot be, or has lost count."""
    report = Report(
        contender=contender.name,
        version=version(contender.package),
        configured=contender.configured,
        promise=contender.promise,
        trial=trial,
    )
    began = time.monotonic()
    proof = proof_of(contender, trial)
    url = _new_database(server)
    asyncio.run(_prepared(proof, url))
    with tempfile.TemporaryDirectory() as directory:
        crew = Crew(contender, url, trial.workers, Path(directory))
        try:
            _Run(contender, trial, proof, server, url, crew, report, progress).carry_out(began + seconds)
        finally:
            crew.close()
    report.killed, report.crashed, report.last_words = crew.killed, crew.crashed, crew.last_words
    report.seconds = time.monotonic() - began
    assert report.findings is not None
    if trial.fault == "kill" and report.killed != report.findings.strikes:
        raise HarnessError(
            f"{report.findings.strikes} strikes are written down, and {report.killed} processes were killed"
        )
    return report


def _new_database(server: PostgresServer) -> str:
    """Its address. It goes with the server: to drop it would cost a checkpoint."""
    import psycopg
    from psycopg import sql

    name = f"faults_{secrets.token_hex(4)}"
    with psycopg.connect(server.url, autocommit=True) as raw:
        raw.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    return server.url_of(name)


async def _prepared(proof: Proof, url: str) -> None:
    async with fp.connect(url) as database:
        await proof.prepare(database)


class _Run:
    """One trial, until it is settled."""

    def __init__(
        self,
        contender: Contender,
        trial: Trial,
        proof: Proof,
        server: PostgresServer,
        url: str,
        crew: Crew,
        report: Report,
        progress: Progress,
    ) -> None:
        self._contender = contender
        self._trial = trial
        self._proof = proof
        self._server = server
        self._crew = crew
        self._report = report
        self._progress = progress
        self._url = url
        self._looked = _Looked(url)

    def carry_out(self, deadline: float) -> None:
        """Raises `HarnessError`."""
        try:
            while not self._proof.done(self._looked):
                self._crew.look()
                done = effects(self._looked)
                self._say(done)
                self._strike_the_server(len(done))
                if time.monotonic() > deadline:
                    self._report.missing.append("time was up before everything was done, or nothing happened any more")
                    break
                time.sleep(LOOK_S)
            self._crew.look()
            self._judge()
        finally:
            self._looked.close()

    def _judge(self) -> None:
        report = self._report
        report.wrong = [sentence for each in self._proof.eventually for sentence in each.wrong(self._looked)]
        report.missing += [each.claim for each in self._proof.sometimes if not each.happened(self._looked)]
        if self._trial.fault == "server" and report.server_kills < self._trial.strikes:
            report.missing.append(f"the server was killed {report.server_kills} times, and the work was done")
        report.findings = findings(self._looked, self._contender, self._trial)
        report.verdict = "violated" if report.wrong else "inconclusive" if report.missing else "held"

    def _strike_the_server(self, done: int) -> None:
        """At even distances, by the work that is done."""
        if self._trial.fault != "server" or self._report.server_kills >= self._trial.strikes:
            return
        if done * (self._trial.strikes + 1) < self._trial.jobs * (self._report.server_kills + 1):
            return
        self._report.server_kills += 1
        self._looked.close()
        self._server.kill()
        self._server.start()
        self._looked = _Looked(self._url)

    def _say(self, done: Mapping[int, int]) -> None:
        struck = self._report.server_kills or len(strikes(self._looked))
        again = sum(done.values()) - len(done)
        self._progress(f"{len(done)} of {self._trial.jobs} jobs, {struck} strikes, {again} repeated")
