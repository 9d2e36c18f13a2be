"""Proving live: an undisturbed run that shows where the points are, and then one run for each fault."""

from __future__ import annotations

import re
import secrets
import shlex
import shutil
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain, zip_longest
from pathlib import Path

from faultproof.errors import FaultproofError, InvalidInput
from faultproof.prove.harness import HarnessError
from faultproof.prove.live.engines import Engine, engine_called
from faultproof.prove.live.fleet import Crew, Fleet, left_behind
from faultproof.prove.live.ground import Ground, Workshop
from faultproof.prove.live.options import LiveOptions
from faultproof.prove.live.orders import BY_PROXY, POINTED, Order, Point, at_commits, at_points, stops
from faultproof.prove.live.report import VIOLATIONS_MAX, LiveReport, LiveViolation, Plan
from faultproof.prove.live.run import Outcome, Run
from faultproof.prove.proof import Proof

TRIES = 3
"""For a point that a run did not pass this time."""
_NETWORK = ("reset", "half-open", "lost-requests", "lost-answers", "latency")
_EACH = 2
_PATIENCE = 2.0

Progress = Callable[[int, int], object]
"""Hears of runs made and runs planned."""


def plan(proof: Proof, engine: str, options: LiveOptions | None = None) -> Plan:
    """What `prove_live` would do, without doing it. Raises what it raises for bad input."""
    options = options or LiveOptions()
    where = engine_called(engine, allow_remote=options.allow_remote)
    return Plan(
        proof=proof.name,
        engine=where.name,
        makes=where.makes,
        processes=tuple(proof.processes(options.plant)),
        command=None if options.command is None else shlex.join(options.command),
        faults=_counts(where, options),
        seconds=options.seconds,
        parallel=options.parallel,
        leftovers=tuple(where.leftovers()),
    )


def prove_live(
    proof: Proof, engine: str, options: LiveOptions | None = None, progress: Progress = lambda made, planned: None
) -> LiveReport:
    """Run the proof on real processes and a real database, struck by one fault after the other.

    `engine`: `sqlite`, `postgresql` (a server that the prover starts itself), or the URL of a database: on that, only in
    schemas of its own. Raises `InvalidInput` for what cannot be meant, `CannotOpen` where the database cannot be used, and
    `HarnessError` where the proof could not be carried out. However it ends, its processes are gone; `left` says what else
    is not.
    """
    options = options or LiveOptions()
    if options.plant is not None and options.plant not in {plant.name for plant in proof.plants}:
        raise InvalidInput(f"{proof.name} has no planted bug {options.plant!r}")
    report = LiveReport(proof.name, options.plant)
    began = time.monotonic()
    where = engine_called(engine, allow_remote=options.allow_remote)
    for order in options.orders or ():
        _refuse_impossible(order, where, proof, options)
    report.swept = where.sweep()
    workshop, marker = Workshop(), secrets.token_hex(8)
    try:
        with _carried_out():
            ground = where.ground(proof, workshop.path)
            try:
                with Fleet(proof.name, options.plant, marker=marker, mutation=options.mutation) as fleet:
                    _Proving(proof, options, where, ground, fleet, workshop.path, report, progress).prove()
            finally:
                report.left += ground.close()
    finally:
        where.close()
        report.left += workshop.close()
        report.left += [f"the process {pid} still runs" for pid in left_behind(marker)]
    report.missing = {each.claim for each in proof.sometimes} - report.seen
    report.seconds = time.monotonic() - began
    return report


@contextmanager
def _carried_out() -> Iterator[None]:
    """What the proof's own code raises comes out as `HarnessError`; what is wrong with the input or the database as it is."""
    try:
        yield
    except (FaultproofError, HarnessError):
        raise
    except Exception:
        raise HarnessError(traceback.format_exc().rstrip()) from None


class _Proving:
    """All runs of one call."""

    def __init__(
        self,
        proof: Proof,
        options: LiveOptions,
        where: Engine,
        ground: Ground,
        fleet: Fleet,
        directory: Path,
        report: LiveReport,
        progress: Progress,
    ) -> None:
        self._proof = proof
        self._options = options
        self._where = where
        self._ground = ground
        self._fleet = fleet
        self._directory = directory
        self._report = report
        self._progress = progress
        self._names = tuple(proof.processes(options.plant))
        self._deadline = time.monotonic() + options.seconds
        self._numbers = 0
        self._planned = 1
        self._late: list[Order] = []
        """Of runs that were not finished in time."""
        self._patience = 1.0
        self._pace = 1.0
        """By how much random times are shorter, so that they fall into the work: as they are, they fill half a second."""

    def prove(self) -> None:
        """Raises `HarnessError`."""
        report, options = self._report, self._options
        report.engine = self._ground.name
        undisturbed = self._carried_out(self._next(), Order())
        self._count(undisturbed, keep="undisturbed")
        self._pace = min(1.0, max(undisturbed.worked_s, 0.01) / 0.5)
        report.points = len(undisturbed.points)
        report.distinct = sum(1 for point in undisturbed.points if point.changes)
        if report.violations and options.orders is None:
            return
        orders = list(options.orders) if options.orders is not None else self._orders(undisturbed.points)
        self._planned += len(orders)
        self._side_by_side([order for order in orders if order.kind != "server"])
        self._side_by_side([order for order in orders if order.kind == "server"], parallel=1)
        # A machine that is busy keeps leases from being renewed in time. So who was late beside others, and was not late for
        # want of anything else, gets the machine to itself, as far as that is ours to give, and more time.
        again, self._late, self._patience = self._late, [], _PATIENCE
        self._side_by_side(again, parallel=1)

    def _orders(self, points: Sequence[Point]) -> list[Order]:
        """In turns, one of each kind: those that wait leave the processor to the others."""
        options, counts = self._options, _counts(self._where, self._options)
        distinct = [point for point in points if point.changes]
        open_ = [point for point in points if point.label.startswith("at COMMIT")]
        asked = [point for point in points if point.label.startswith("after request")]
        sent = [point for point in points if point.label.startswith("before request")]
        kinds = [
            at_points("kill", distinct, counts.get("kill", 0)),
            stops(points, counts.get("stop") or 0),
            at_points("lose", asked, options.stops),
            at_points("twice", sent, options.stops),
            at_points("orphan", open_, counts.get("orphan", 0)),
            at_commits(points, counts.get("drop") or 0),
        ]
        seeds = [
            [Order(kind, "", options.seed + number) for number in range(counts.get(kind) or 0)]  # type: ignore[arg-type]
            for kind in ("kills", *_NETWORK, "server")
        ]
        turns = zip_longest(*kinds, *seeds)
        return [order for order in chain.from_iterable(turns) if order is not None]

    def _side_by_side(self, orders: Sequence[Order], parallel: int | None = None) -> None:
        """Run them, some at the same time."""
        left, under_way = list(reversed(orders)), set[Future[Outcome]]()
        width = parallel or min(self._options.parallel, self._ground.crews(len(self._names)))
        pool = ThreadPoolExecutor(width, thread_name_prefix="faultproof-run")
        try:
            while left or under_way:
                while left and len(under_way) < width and not self._is_over():
                    under_way.add(pool.submit(self._tried, self._next(), left.pop()))
                if not under_way:
                    break
                done, under_way = wait(under_way, return_when=FIRST_COMPLETED)
                for future in done:
                    self._take(future.result())
        except BaseException:
            self._fleet.close()  # which ends the runs that are under way
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
        self._report.not_run += [] if self._report.violations else reversed(left)

    def _is_over(self) -> bool:
        report = self._report
        if report.violations and (self._options.plant, self._options.mutation) != (None, None):
            return True
        return len(report.violations) >= VIOLATIONS_MAX or time.monotonic() > self._deadline

    def _tried(self, number: int, order: Order) -> Outcome:
        """The outcome of a run in which the order struck, if it can be had."""
        for attempt in range(TRIES):
            # Work that is done in no time is struck sooner the next time.
            outcome = self._carried_out(number, order, pace=self._pace / 2**attempt)
            if outcome.fired or outcome.wrong:
                break
        return outcome

    def _carried_out(self, number: int, order: Order, pace: float = 1.0) -> Outcome:
        directory = self._directory / f"run-{number}"
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(mode=0o700)
        place = self._ground.place(number)
        try:
            crew = Crew(self._fleet)
            run = Run(
                self._proof,
                order,
                place,
                directory,
                crew,
                replace(self._options, run_s=self._options.run_s * self._patience),
                names=self._names,
                engine=self._ground.name,
                kill_server=self._where.kill_server,
                pace=pace,
            )
            return run.carry_out()
        finally:
            place.close()

    def _next(self) -> int:
        self._numbers += 1
        return self._numbers

    def _take(self, outcome: Outcome) -> None:
        if outcome.late and self._patience == 1.0:
            self._late.append(outcome.order)
        else:
            self._count(outcome)

    def _count(self, outcome: Outcome, keep: str = "") -> None:
        report, kind = self._report, outcome.order.kind
        report.runs += 1
        report.restarts += outcome.restarts
        report.seen |= outcome.seen
        report.strikes += outcome.fired
        if kind != "none":
            report.planned[kind] += 1
            report.fired[kind] += bool(outcome.fired)
            if not outcome.fired:
                report.unreached.append(outcome.order)
        kept = None
        assert outcome.history is not None
        if self._options.keep is not None and (outcome.wrong or keep):
            name = keep or re.sub(r"[^\w.]+", "-", str(outcome.order))
            kept = self._options.keep / f"{self._proof.name.rpartition(':')[2].lower()}-{name}.jsonl"
            shutil.copyfile(outcome.history, kept)
        if keep:
            report.kept = kept
        if outcome.wrong and len(report.violations) < VIOLATIONS_MAX:
            report.violations.append(LiveViolation(outcome.order, outcome.struck, tuple(outcome.wrong), kept))
        shutil.rmtree(outcome.history.parent, ignore_errors=True)
        self._progress(report.runs, self._planned)


def _refuse_impossible(order: Order, where: Engine, proof: Proof, options: LiveOptions) -> None:
    """Raise `InvalidInput` for what cannot strike here."""
    if order.kind in BY_PROXY and not where.has_network:
        raise InvalidInput(f"{order}: {where.name} is not reached through a network that a proxy can stand in")
    if order.kind == "server" and where.kill_server is None:
        raise InvalidInput(f"{order}: only a server that the prover has started itself is killed")
    if order.process and order.process not in proof.processes(options.plant):
        raise InvalidInput(f"{order}: {proof.name} has no process {order.process!r}")
    if order.kind in POINTED and options.command is not None:
        raise InvalidInput(f"{order}: a service of yours has no numbered points; kill it at random times (kills:SEED)")


def _counts(where: Engine, options: LiveOptions) -> dict[str, int | None]:
    """Runs by kind of fault; None: one for each distinct point."""
    found: dict[str, int | None] = {"kills": options.kills}
    if options.command is None:
        found = {"kill": options.points, "stop": options.stops, **found}
    if where.has_network:
        found |= {"drop": options.network, "orphan": options.network}
        found |= dict.fromkeys(_NETWORK, min(_EACH, options.network))
    if where.kill_server is not None:
        found["server"] = options.server_kills
    if options.command is not None:
        found = {kind: count for kind, count in found.items() if kind not in POINTED}
    return found
