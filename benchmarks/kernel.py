"""The kernel's figures on SQLite: `make bench`, or `python -m benchmarks.kernel [NAME…] [--rounds N] [--json]`.

Each pair is measured in alternation, several rounds, on files in one directory, with the same durability on both sides,
which is printed. Medians count; ratios travel between machines, rates do not. Run nothing else meanwhile.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import faultproof as fp
from faultproof.patterns.batch.proof import BATCH
from faultproof.patterns.outbox.proof import OUTBOX, POISON
from faultproof.ports.database import Database
from faultproof.ports.log import Entry
from faultproof.ports.script import Script, sql
from faultproof.prove.explore import explore
from faultproof.prove.faults import CRASH

CALLERS = 64
Figures = dict[str, Any]


@sql("INSERT INTO plain (text) VALUES (:text)")
def _insert_one(text: str) -> None: ...


@sql("INSERT INTO plain (text) SELECT value FROM {texts}")
def _insert_all(texts: Sequence[str]) -> None: ...


def _apply(texts: Sequence[str], wait: bool) -> Script[list[fp.Ok[None]]]:
    yield from _insert_all(texts)
    return [fp.Ok(None) for _ in texts]


def _fresh(directory: Path, name: str) -> str:
    for old in directory.glob(name + "*"):
        if old.is_file():
            old.unlink()
    return str(directory / name)


async def _timed(callers: int, each: int, call: Callable[[str], Awaitable[Any]]) -> float:
    """Operations a second of `callers` that each make `each` calls, one after the other."""

    async def caller(number: int) -> None:
        for turn in range(each):
            await call(f"{number}/{turn}")

    began = time.perf_counter()
    await asyncio.gather(*(caller(number) for number in range(callers)))
    return callers * each / (time.perf_counter() - began)


def _raw_transactions(path: str, count: int) -> float:
    """By hand, synchronously: BEGIN IMMEDIATE, INSERT, COMMIT, at FULL."""
    raw = sqlite3.connect(path, isolation_level=None)
    raw.execute("PRAGMA synchronous=FULL")
    began = time.perf_counter()
    for number in range(count):
        raw.execute("BEGIN IMMEDIATE")
        raw.execute("INSERT INTO plain (text) VALUES (?)", (str(number),))
        raw.execute("COMMIT")
    seconds = time.perf_counter() - began
    raw.close()
    return count / seconds


async def batch(directory: Path, rounds: int) -> Figures:
    """One-row inserts: in shared transactions, and in one each."""
    rates: dict[str, list[float]] = {name: [] for name in ("shared64", "own64", "shared1", "own1", "raw1")}
    path = _fresh(directory, "batch.db")
    async with fp.connect(path) as db:
        async with db.transaction() as tx:
            await tx.execute("CREATE TABLE plain (n INTEGER PRIMARY KEY, text TEXT)")
        shared: fp.GroupCommit[str, None] = fp.GroupCommit(db, _apply)
        for _ in range(rounds):
            rates["own64"].append(await _timed(CALLERS, 20, lambda text: db.transact(_insert_one(text))))
            rates["shared64"].append(await _timed(CALLERS, 200, lambda text: shared.submit(text)))
            rates["own1"].append(await _timed(1, 500, lambda text: db.transact(_insert_one(text))))
            rates["shared1"].append(await _timed(1, 500, lambda text: shared.submit(text)))
            rates["raw1"].append(await asyncio.to_thread(_raw_transactions, path, 500))
        durability = db.durability
    median = {name: statistics.median(values) for name, values in rates.items()}
    return {
        "durability": durability,
        "64 callers, shared transactions (per s)": median["shared64"],
        "64 callers, one transaction each (per s)": median["own64"],
        "ratio (aim: at least 10)": median["shared64"] / median["own64"],
        "one caller, through the batcher (per s)": median["shared1"],
        "one caller, plain transaction (per s)": median["own1"],
        "one caller, ratio (aim: at least 0.85)": median["shared1"] / median["own1"],
        "one caller, sqlite3 by hand, no event loop (per s)": median["raw1"],
    }


def _entries(count: int, start: int = 0) -> list[Entry]:
    payload = json.dumps({"order": "o-123456", "item": "whole milk", "version": 17})
    return [
        Entry(number % 8, f"{number:032x}", f"key-{number % 500}", "item.sold", payload, None, 0)
        for number in range(start, start + count)
    ]


async def _backlog(db: Database, count: int) -> None:
    for start in range(0, count, 20_000):
        await db.transact(db.logs.append("outbox", _entries(min(20_000, count - start), start), partitions=8))


async def _drained(outbox: fp.Outbox, db: Database, moments: list[tuple[int, float]] | None = None) -> float:
    """Run a sequencer until the intake is empty; events a second."""
    loop = outbox.sequencer()
    news = await loop.open()
    began, moved = time.perf_counter(), 0
    while True:
        rest = await loop.step()
        if rest > 0.1:
            break
        if moments is not None:
            moments.append((0, time.perf_counter()))
    seconds = time.perf_counter() - began
    news.close()
    spans = await db.read(db.logs.spans("outbox"))
    moved = sum(span.next for span in spans)
    await loop.close()
    return moved / seconds


def _raw_executemany(path: str, count: int) -> float:
    """What SQLite itself takes for the same rows in the log's table, in one statement and one transaction each 2,000."""
    raw = sqlite3.connect(path, isolation_level=None)
    raw.execute("PRAGMA synchronous=FULL")
    rows = [
        ("raw", e.partition, number // 8, number, 0, e.id, e.key, e.type, e.payload, e.headers)
        for number, e in enumerate(_entries(count))
    ]
    began = time.perf_counter()
    for start in range(0, count, 2_000):
        raw.execute("BEGIN IMMEDIATE")
        raw.executemany("INSERT INTO faultproof_log VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows[start : start + 2_000])
        raw.execute("COMMIT")
    seconds = time.perf_counter() - began
    raw.close()
    return count / seconds


async def sequencing(directory: Path, rounds: int) -> Figures:
    """A backlog of 20,000 events into the log, beside a raw `executemany`."""
    ours, raw = [], []
    for _ in range(rounds):
        path = _fresh(directory, "sequencing.db")
        async with fp.connect(path) as db:
            outbox = fp.Outbox(db, events={"item.sold": dict})
            await outbox.install()
            await _backlog(db, 20_000)
            ours.append(await _drained(outbox, db))
            durability = db.durability
        raw.append(_raw_executemany(path, 20_000))
    return {
        "durability": durability,
        "sequenced (events/s, aim: 25,000)": statistics.median(ours),
        "raw executemany into the log's table (rows/s)": statistics.median(raw),
        "ratio": statistics.median(ours) / statistics.median(raw),
    }


async def million(directory: Path, rounds: int) -> Figures:
    """A backlog of a million events at a flat rate, and the memory it takes. The backlog is made by another process."""
    path = _fresh(directory, "million.db")
    async with fp.connect(path) as db:
        outbox = fp.Outbox(db, events={"item.sold": dict})
        await outbox.install()
    maker = await asyncio.create_subprocess_exec(sys.executable, "-m", __package__ + ".kernel", "--fill", path)
    await maker.wait()
    moments: list[tuple[int, float]] = []
    async with fp.connect(path) as db:
        outbox = fp.Outbox(db, events={"item.sold": dict})
        began = time.perf_counter()
        rate = await _drained(outbox, db, moments)
        durability = db.durability
    times = [began, *(moment for _, moment in moments)]
    tenth = len(times) // 10
    first, last = times[tenth] - times[0], times[-1] - times[-1 - tenth]
    return {
        "durability": durability,
        "sequenced (events/s)": rate,
        "last tenth / first tenth (aim: at least 0.8)": first / last,
        "peak memory of the sequencing process (MB, aim for all together: 150)": _peak_mb(),
    }


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


async def exploration(directory: Path, rounds: int) -> Figures:
    """Crash, recover, check: schedules a second in simulation, on two processes."""
    figures: Figures = {"durability": "simulated SQLite in memory"}
    for name, proof in (("outbox", OUTBOX), ("poison", POISON), ("batch", BATCH)):
        once = [await asyncio.to_thread(explore, proof, depth=1) for _ in range(rounds)]
        twice = await asyncio.to_thread(explore, proof, depth=2, faults=(CRASH,))
        report = once[0]
        assert not report.violations
        assert not twice.violations
        figures[f"{name}: depth 1 (s, aim: 1)"] = statistics.median(one.seconds for one in once)
        figures[f"{name}: depth 1, places x faults"] = report.points
        figures[f"{name}: depth 1, not equivalent, each tried"] = report.distinct
        figures[f"{name}: depth 2, crashes (s, aim: 15)"] = twice.seconds
        figures[f"{name}: depth 2, places x faults"] = twice.points
        figures[f"{name}: depth 2, schedules run"] = twice.schedules
        figures[f"{name}: schedules/s (aim: 700, better 1,000)"] = twice.rate
    return figures


async def wakeup(directory: Path, rounds: int) -> Figures:
    """From the commit in one process to the handler in another, and what an idle worker costs."""
    path = _fresh(directory, "wakeup.db")
    async with fp.connect(path) as db:
        outbox = fp.Outbox(db, events={"tick": dict})
        await outbox.install()
        delays: list[float] = []
        arrived = asyncio.Event()

        async def sink(event: fp.Event[dict[str, float]]) -> None:
            delays.append(time.time() - event.body["sent"])
            arrived.set()

        worker = fp.Worker(db.env, outbox.sequencer(), outbox.relay("delay", sink), outbox.retention())
        running = asyncio.create_task(worker.run())
        cpu, wall = time.process_time(), time.perf_counter()
        await asyncio.sleep(4)
        idle = (time.process_time() - cpu) / (time.perf_counter() - wall)
        sender = await asyncio.create_subprocess_exec(
            sys.executable, "-m", __package__ + ".kernel", "--send", path, stdin=asyncio.subprocess.PIPE
        )
        assert sender.stdin is not None
        for _ in range(300):
            arrived.clear()
            sender.stdin.write(b"\n")
            await arrived.wait()
        sender.stdin.close()
        await sender.wait()
        worker.stop()
        await running
        durability = db.durability
    return {
        "durability": durability,
        "from just before the commit to delivery in another process, p50 (ms, aim: 5)": statistics.median(delays) * 1e3,
        "the same, p99 (ms)": sorted(delays)[int(len(delays) * 0.99)] * 1e3,
        "idle worker (% of a core, aim: 1)": idle * 100,
    }


async def _send(path: str) -> None:
    async with fp.connect(path) as db:
        outbox = fp.Outbox(db, events={"tick": dict})
        loop = asyncio.get_running_loop()
        while await loop.run_in_executor(None, sys.stdin.readline):
            await outbox.publish({"sent": time.time()}, type="tick", key="k")


async def _fill(path: str) -> None:
    async with fp.connect(path) as db:
        await _backlog(db, 1_000_000)


BENCHES: dict[str, Callable[[Path, int], Awaitable[Figures]]] = {
    "batch": batch,
    "sequencing": sequencing,
    "million": million,
    "wakeup": wakeup,
    "exploration": exploration,
}


def main() -> None:
    """Run the benches named, or all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="*", help=f"of {', '.join(BENCHES)} (all)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--directory", type=Path, help="where the files go (a temporary directory)")
    parser.add_argument("--fill", help=argparse.SUPPRESS)
    parser.add_argument("--send", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.fill or args.send:
        asyncio.run(_fill(args.fill) if args.fill else _send(args.send))
        return
    if unknown := set(args.name) - set(BENCHES):
        parser.error(f"unknown bench {sorted(unknown)[0]!r}: choose from {', '.join(BENCHES)}")
    results = {}
    with tempfile.TemporaryDirectory(dir=args.directory) as directory:
        for name in args.name or BENCHES:
            results[name] = asyncio.run(BENCHES[name](Path(directory), args.rounds))
            if not args.json:
                print(f"\n{name}: {(BENCHES[name].__doc__ or '').strip()}")
                for what, value in results[name].items():
                    print(f"  {what:76} {value if isinstance(value, str) else format(value, ',.2f'):>14}", flush=True)
    if args.json:
        json.dump(results, sys.stdout, indent=2)
        print()


if __name__ == "__main__":
    main()
