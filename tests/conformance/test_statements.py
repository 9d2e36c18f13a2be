"""A statement means the same on every engine: parameters, sets of rows, results, and the text between them."""

from collections.abc import Sequence
from typing import NamedTuple

import pytest

from faultproof.errors import InvalidInput
from faultproof.ports.database import Database
from faultproof.ports.script import Patience, Script, ddl, sql
from faultproof.ports.statement import Changed

pytestmark = pytest.mark.anyio


class Row(NamedTuple):
    name: str
    size: int | None
    ratio: float | None


ROWS = [Row("b", 2, 0.5), Row("a", None, None), Row("ü\U0001f600", -(2**63), -1e300), Row("", 2**63 - 1, 3.25)]


@sql("INSERT INTO thing (name, size, ratio) SELECT name, size, ratio FROM {rows}")
def insert_all(rows: Sequence[Row]) -> Changed: ...


@sql("INSERT INTO thing (name, size, ratio) VALUES (:name, :size, :ratio)")
def insert(name: str, size: int | None, ratio: float | None) -> Changed: ...


@sql("SELECT name, size, ratio FROM thing ORDER BY name")
def everything() -> list[Row]: ...


@sql("SELECT name, size, ratio FROM thing WHERE name = :name")
def one(name: str) -> Row | None: ...


@sql("SELECT size FROM thing WHERE name = :name")
def size_of(name: str) -> int | None: ...


@sql("SELECT name FROM thing WHERE size IN {sizes} OR name IN {names} ORDER BY name")
def named(sizes: Sequence[int], names: Sequence[str]) -> list[str]: ...


@sql("SELECT name, size, ratio FROM {rows} ORDER BY ordinal")
def echo(rows: Sequence[Row]) -> list[Row]: ...


@sql("SELECT ordinal FROM {rows} ORDER BY ordinal")
def ordinals(rows: Sequence[Row]) -> list[int]: ...


@sql("SELECT value FROM {names} ORDER BY value")
def sorted_names(names: Sequence[str]) -> list[str]: ...


@sql("SELECT t.name FROM thing AS t JOIN {rows} ON rows.name = t.name AND rows.size = t.size WHERE t.size > :above")
def joined(rows: Sequence[Row], above: int) -> list[str]: ...


@sql("SELECT count(*) FROM thing WHERE :name = :name")
def count(name: str) -> int: ...


@sql("SELECT '100%' || ' ''quoted'' ' || :text || CASE WHEN 7 % 4 = 3 THEN '%s' ELSE '' END")
def puzzle(text: str) -> str: ...


@sql("UPDATE thing SET size = size + 1 WHERE name = :name RETURNING size")
def grown(name: str) -> list[int]: ...


@pytest.fixture
async def things(db: Database) -> Database:
    await db.transact(ddl("CREATE TABLE thing (name TEXT NOT NULL, size BIGINT, ratio DOUBLE PRECISION)"))
    return db


async def test_set_of_rows_arrives_whole_and_in_order(things: Database) -> None:
    assert await things.read(echo(ROWS)) == ROWS
    assert await things.read(ordinals(ROWS)) == [0, 1, 2, 3]
    assert await things.transact(insert_all(ROWS)) == 4
    assert sorted(await things.read(everything())) == sorted(ROWS)
    assert await things.transact(insert_all([])) == 0


async def test_plain_values_are_a_set_too(things: Database) -> None:
    await things.transact(insert_all(ROWS))
    assert await things.read(named([2, 2**63 - 1, 5], ["a", "none"])) == ["", "a", "b"]
    assert await things.read(named([], [])) == []
    assert await things.read(sorted_names(["c", "a", "b\"'%s\\"])) == ["a", "b\"'%s\\", "c"]


async def test_set_joins_a_table(things: Database) -> None:
    await things.transact(insert_all(ROWS))
    assert await things.read(joined([Row("b", 2, 0.0), Row("a", 1, 0.0)], 1)) == ["b"]


async def test_single_values_arrive_as_they_are(things: Database) -> None:
    for row in ROWS:
        assert await things.transact(insert(*row)) == 1
        assert await things.read(one(row.name)) == row
    assert await things.read(one("none")) is None
    assert await things.read(size_of("b")) == 2
    assert await things.read(size_of("a")) is None
    assert await things.read(count("x")) == 4


async def test_text_of_a_statement_is_only_what_it_says(things: Database) -> None:
    assert await things.read(puzzle("%(text)s :text ?")) == "100% 'quoted' %(text)s :text ?%s"


async def test_changed_rows_are_counted_and_returned(things: Database) -> None:
    await things.transact(insert("a", 1, None))
    await things.transact(insert("a", 5, None))
    assert sorted(await things.transact(grown("a"))) == [2, 6]
    assert await things.transact(grown("none")) == []


async def test_parameter_used_often_enough_to_be_prepared_keeps_its_meaning(things: Database) -> None:
    for size in (1, 2**15, 2**31, 2**62, None, 0, -1, 2**40):
        await things.transact(insert(f"{size}", size, None))
        assert await things.read(size_of(f"{size}")) == size


@pytest.mark.parametrize("name", ["a\0b", "\ud800"], ids=["NUL", "surrogate"])
async def test_text_that_no_database_can_hold_is_refused(things: Database, name: str) -> None:
    with pytest.raises(InvalidInput):
        await things.transact(insert(name, 1, None))
    with pytest.raises(InvalidInput):
        await things.transact(insert_all([Row("good", 1, None), Row(name, 1, None)]))
    with pytest.raises(InvalidInput):
        await things.read(sorted_names([name]))
    assert await things.read(everything()) == []


async def test_integer_over_64_bits_is_refused(things: Database) -> None:
    with pytest.raises(InvalidInput):
        await things.transact(insert("big", 2**63, None))
    with pytest.raises(InvalidInput):
        await things.transact(insert("big", -(2**63) - 1, None))
    assert await things.read(everything()) == []


@sql("SELECT name FROM thing WHERE name IN {names} ORDER BY name {lock_or_skip}")
def locked_or_skipped(names: Sequence[str]) -> list[str]: ...


@sql("SELECT {moment} - {now}")
def passed() -> int: ...


async def test_a_moment_is_not_before_the_beginning_of_its_statement(db: Database) -> None:
    assert 0 <= await db.read(passed()) < 10_000_000


@sql("SELECT name FROM thing WHERE name NOT IN {names} ORDER BY name")
def not_named(names: Sequence[str]) -> list[str]: ...


async def test_what_is_in_no_set_is_found_too(things: Database) -> None:
    await things.transact(insert_all(ROWS))
    everything_named = await things.read(sorted_names([row.name for row in ROWS]))
    assert await things.read(not_named([])) == sorted(everything_named)
    assert await things.read(not_named(everything_named)) == []


@sql("SELECT name FROM thing WHERE name IN {names} ORDER BY name {lock}")
def locked(names: Sequence[str]) -> list[str]: ...


@sql("SELECT i.item FROM stocked AS i WHERE i.item IN (SELECT value FROM {names} LIMIT :count) ORDER BY i.item")
def items_named(names: Sequence[str], count: int) -> list[str]: ...


async def test_rows_that_nobody_else_has_locked_are_locked_and_found(db: Database) -> None:
    await db.transact(ddl("CREATE TABLE thing (name TEXT, size BIGINT, ratio DOUBLE PRECISION)"))
    await db.transact(insert_all(ROWS))
    async with db.transaction() as tx:
        assert await tx.run(locked(["a"])) == ["a"]
        assert await tx.run(locked_or_skipped(["a", "b", "none"])) == ["a", "b"]


async def test_a_set_of_values_means_itself_whatever_the_columns_around_it_are_called(db: Database) -> None:
    await db.transact(ddl("CREATE TABLE stocked (item TEXT)"))
    async with db.transaction() as tx:
        await tx.execute("INSERT INTO stocked VALUES ('a'), ('b'), ('c')")
    assert await db.read(items_named(["a", "c"], 2)) == ["a", "c"]


async def test_patience_changes_nothing_where_nobody_else_has_a_lock(db: Database) -> None:
    await db.transact(ddl("CREATE TABLE thing (name TEXT, size BIGINT, ratio DOUBLE PRECISION)"))

    def impatient() -> Script[list[str]]:
        yield Patience(0.5)
        yield from insert_all(ROWS)
        return (yield from locked(["a"]))

    assert await db.transact(impatient) == ["a"]
