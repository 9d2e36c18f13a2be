"""The audit: the tables and the journal, compared line by line. It believes no counter of the program.

Four accounts must agree: what customers were answered, the orders' rows, the stream, and what the consumers made of the
stream. Each step compares two neighbours and names the rows where they differ.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from faultproof.shop.baskets import Line
from faultproof.shop.effects import CHAIN_FACTOR, CHAIN_MODULUS, STOCK
from faultproof.shop.findings import Check, Findings
from faultproof.shop.journal import Answered, Sent
from faultproof.shop.ledger import Books, Ledger, OrderLine, Recorded, Tally, read_books
from faultproof.shop.settlement import settle


class Audited(NamedTuple):
    """All checks. The run held if none has a violation."""

    accepted: int
    """Orders answered 201, by the journal."""
    checks: list[Check]
    fulfilled: int
    compensated: int
    answers: int
    """That the provider has given."""
    answers_lost: int

    @property
    def held(self) -> bool:
        return not any(check.violations for check in self.checks)


def audit(database: Ledger, journal: Sequence[Sent | Answered], provider: Path) -> Audited:
    """Compare everything. Run it when nothing writes any more; it changes nothing."""
    books = read_books(database)
    settlement = settle(database, provider)
    accepted = {entry.key for entry in journal if isinstance(entry, Answered) and entry.status == 201}
    return Audited(
        len(accepted),
        [
            *_orders(journal, books),
            _items(books),
            *_stream(books),
            *_effects(books),
            *settlement.checks,
            _damage(database),
        ],
        settlement.fulfilled,
        settlement.compensated,
        settlement.answers,
        settlement.answers_lost,
    )


def _orders(journal: Sequence[Sent | Answered], books: Books) -> list[Check]:
    """Answers against the orders' rows."""
    sent = {entry.key: sorted(entry.lines) for entry in journal if isinstance(entry, Sent)}
    ids = defaultdict(list)
    for order in books.orders:
        ids[order.key].append(order.id)
    lines = defaultdict(list)
    for line in books.lines:
        lines[line.order].append(Line(line.item, line.quantity))
    lost, twice, unknown = Findings(), Findings(len(ids)), Findings(len(ids))
    for answer in journal:
        if not isinstance(answer, Answered) or answer.status != 201:
            continue
        lost.examined += 1
        if answer.order not in ids[answer.key]:
            lost.add(
                f"order {answer.key}: answered 201 with id {answer.order}, the table has {ids[answer.key] or 'none'}"
            )
        elif sorted(lines[answer.order]) != sent.get(answer.key):
            lost.add(f"order {answer.key}: sent {sent.get(answer.key)}, the table has {sorted(lines[answer.order])}")
    refused = {a.key for a in journal if isinstance(a, Answered) and a.status != 201}
    for id in sorted(lines.keys() - {order.id for order in books.orders}):
        unknown.add(f"order id {id}: it has lines and no row")
    for key, found in ids.items():
        if len(found) > 1:
            twice.add(f"order {key}: {len(found)} rows, {', '.join(found[:3])}", len(found) - 1)
        if found and (key not in sent or key in refused):
            unknown.add(f"order {key}: in the table, and {'refused' if key in sent else 'never sent'}")
    return [
        lost.check("lost_orders", "orders answered 201 are in the table as sent"),
        twice.check("duplicate_orders", "… once"),
        unknown.check("unknown_orders", "orders in the table were sent, and not refused"),
    ]


def _items(books: Books) -> Check:
    """Orders' lines against the items' rows: versions 1 to n without a gap, and the units that they add up to."""
    found = Findings(len(books.items))
    versions, units = defaultdict(list), Counter[str]()
    for line in books.lines:
        versions[line.item].append(line.version)
        units[line.item] += line.quantity
    for item in sorted(versions.keys() | books.items.keys()):
        row, count = books.items.get(item), len(versions[item])
        if sorted(versions[item]) != list(range(1, count + 1)):
            found.add(f"item {item!r}: the versions of its {count} lines are not 1 to {count}")
        if row is None or (row.units, row.sales) != (units[item], count):
            expected = f"{units[item]} units at version {count}"
            found.add(
                f"item {item!r}: its row says {row and f'{row.units} units at version {row.sales}'}, not {expected}"
            )
    return found.check("wrong_items", "items' rows add up to the orders' lines")


def _stream(books: Books) -> list[Check]:
    """Orders' lines against the stream."""
    stream, expected = books.stream, set(books.lines)
    times = Counter(event.line for event in stream)
    lost, twice, phantom = Findings(len(expected)), Findings(len(stream)), Findings(len(stream))
    for line in sorted(expected - times.keys(), key=lambda line: (line.item, line.version)):
        lost.add(f"{line.told()}: committed, not in the stream")
    for line, count in times.items():
        if line not in expected:
            phantom.add(f"{line.told()}: in the stream, never committed", count)
        elif count > 1:
            twice.add(f"{line.told()}: {count} times in the stream", count - 1)
    for event in stream:
        if event.key != event.line.item:
            phantom.add(f"{event.line.told()}: published under the key {event.key!r}")
    for id, count in Counter(event.id for event in stream).items():
        if count > 1 and not twice.violations:
            twice.add(f"event {id}: {count} times in the stream", count - 1)
    return [
        lost.check("lost_events", "committed events are in the stream"),
        twice.check("duplicate_events", "… once"),
        phantom.check("phantom_events", "events of the stream were committed"),
        _order_of(stream),
    ]


def _order_of(stream: Sequence[Recorded]) -> Check:
    """Per key, versions must rise with the offsets; in each partition, offsets must be dense."""
    found = Findings(len(stream))
    latest: dict[str, Recorded] = {}
    offsets: dict[int, int] = {}
    for event in stream:
        expected = offsets.get(event.partition, 0)
        if event.offset != expected:
            found.add(f"partition {event.partition}: offset {event.offset} follows {expected - 1}")
        offsets[event.partition] = event.offset + 1
        before = latest.get(event.line.item)
        if before is not None and event.partition != before.partition:
            found.add(f"item {event.line.item!r}: in partitions {before.partition} and {event.partition}")
        if before is not None and event.line.version < before.line.version:
            found.add(
                f"item {event.line.item!r}: version {event.line.version} at offset {event.offset} of partition "
                f"{event.partition}, behind version {before.line.version} at offset {before.offset}"
            )
        else:
            latest[event.line.item] = event
    return found.check("out_of_order", "the stream is in the versions' order per item")


def _effects(books: Books) -> list[Check]:
    """The stream against what each group made of it."""
    twice, lost, order = Findings(), Findings(), Findings()
    folds = fold(event.line for event in books.stream)
    accounts = {
        "summary": books.summary,
        "stock": {item: tally._replace(units=STOCK - tally.units) for item, tally in books.stock.items()},
    }
    for group, account in accounts.items():
        for item in sorted(folds.keys() | account.keys()):
            twice.examined += 1
            expected, actual = folds.get(item, Tally(0, 0, 0)), account.get(item, Tally(0, 0, 0))
            if expected == actual:
                continue
            surplus = actual.sales - expected.sales
            told = (
                f"{group} of {item!r}: {actual.sales} events with {actual.units} units, "
                f"the stream has {expected.sales} with {expected.units}"
            )
            if surplus > 0:
                twice.add(told, surplus)
            elif surplus < 0:
                lost.add(told, -surplus)
            elif actual.units != expected.units:  # as many too many as too few
                twice.add(told)
                lost.add(told)
            else:
                order.add(f"{group} of {item!r}: the right events, applied in another order than the stream's")
    lost.examined = order.examined = twice.examined
    return [
        lost.check("lost_effects", "events have their effect on summary and stock"),
        twice.check("duplicate_effects", "… once"),
        order.check("disordered_effects", "… in the order of the stream"),
    ]


def fold(lines: Iterable[OrderLine]) -> dict[str, Tally]:
    """What a summary must be after these events."""
    tallies: dict[str, Tally] = {}
    for line in lines:
        before = tallies.get(line.item)
        if before is None:
            tallies[line.item] = Tally(line.quantity, 1, line.version)
        else:
            chain = (before.chain * CHAIN_FACTOR + line.version) % CHAIN_MODULUS
            tallies[line.item] = Tally(before.units + line.quantity, before.sales + 1, chain)
    return tallies


def _damage(database: Ledger) -> Check:
    found = Findings(1)
    for said in database.damage():
        found.add(said)
    return found.check("damage", "the database is sound")
