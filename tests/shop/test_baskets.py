"""Baskets: what is an order, what is refused, and that a seed always means the same orders."""

from collections import Counter
from pathlib import Path

import pytest

from faultproof.errors import InvalidInput
from faultproof.shop.baskets import Line, basket, chosen, generated, read_baskets


def read(tmp_path: Path, content: bytes) -> list[tuple[Line, ...]]:
    path = tmp_path / "baskets.csv"
    path.write_bytes(content)
    return read_baskets(path)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"milk,eggs\n", [[("eggs", 1), ("milk", 1)]]),
        (b"milk,eggs", [[("eggs", 1), ("milk", 1)]]),
        (b"milk\r\neggs\r\n", [[("milk", 1)], [("eggs", 1)]]),
        (b"\n  \nmilk\n,,\n\n", [[("milk", 1)]]),
        (b"milk, ,eggs,\n", [[("eggs", 1), ("milk", 1)]]),
        (b"milk,milk,eggs\n", [[("eggs", 1), ("milk", 2)]]),
        (b'"rolls, buns","the ""best"" milk"\n', [[("rolls, buns", 1), ('the "best" milk', 1)]]),
        ("\ufeffKäse\n".encode(), [[("Käse", 1)]]),
        ("süß\u00a0saure Gurken\n".encode(), [[("süß\u00a0saure Gurken", 1)]]),
        (b" milk , eggs\t\n", [[("eggs", 1), ("milk", 1)]]),
    ],
    ids=[
        "plain",
        "no-last-newline",
        "crlf",
        "blank-lines",
        "blank-fields",
        "repeated",
        "quotes",
        "bom",
        "umlauts",
        "spaces",
    ],
)
def test_lines_become_baskets(tmp_path: Path, content: bytes, expected: list[list[tuple[str, int]]]) -> None:
    assert read(tmp_path, content) == [tuple(Line(*line) for line in lines) for lines in expected]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "has no orders in it"),
        (b"\n\n , \n", "has no orders in it"),
        (b"milk\n\x00\x01\n", "line 2 of .* contains a NUL byte"),
        (b"milk\nk\xe4se\n", "line 2 of .* is not UTF-8 text"),
        (b"milk\n" + b"x" * 65_537, "line 2 of .* is longer than 65536 bytes"),
        (b"milk\n\neggs," + b"x" * 201 + b"\n", "line 3 of .*: an item's name has 1 to 200 bytes"),
        (b"milk\x07\n", "line 1 of .*: an item's name has 1 to 200 bytes and no control characters"),
        (b'"milk\n', "line 1 of .* has a quotation mark that does not fit"),
        (b'"milk"y\n', "line 1 of .* has a quotation mark that does not fit"),
        (b",".join(b"item %d" % n for n in range(501)), "line 1 of .*: an order has 1 to 500 different items, not 501"),
    ],
    ids=[
        "empty",
        "blank",
        "nul",
        "binary",
        "long-line",
        "long-name",
        "control",
        "open-quote",
        "stray-quote",
        "too-many",
    ],
)
def test_files_that_are_no_baskets_are_refused_by_line(tmp_path: Path, content: bytes, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        read(tmp_path, content)


def test_line_and_name_at_their_limits_are_taken(tmp_path: Path) -> None:
    assert read(tmp_path, b"x" * 200) == [(Line("x" * 200, 1),)]
    widest = b",".join([b"a"] * 32_768)
    assert len(widest) == 65_535
    assert read(tmp_path, widest) == [(Line("a", 32_768),)]


def test_missing_file_and_directory_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="there is no file"):
        read_baskets(tmp_path / "missing.csv")
    with pytest.raises(InvalidInput, match="is a directory"):
        read_baskets(tmp_path)


def test_endless_file_is_refused_without_reading_it_all() -> None:
    with pytest.raises(InvalidInput, match="line 1 of /dev/zero"):
        read_baskets(Path("/dev/zero"))


def test_same_seed_orders_the_same() -> None:
    assert list(generated(50, seed=7)) == list(generated(50, seed=7))
    assert list(generated(50, seed=7)) != list(generated(50, seed=8))


def test_generated_baskets_are_skewed_and_small() -> None:
    baskets = list(generated(2_000, seed=1))
    assert {sum(line.quantity for line in lines) for lines in baskets} == set(range(1, 11))
    sold = Counter(line.item for lines in baskets for line in lines)
    assert len(sold) == 150
    assert sold["item 001"] > 10 * sold["item 050"] > 0


def test_items_are_sorted_so_that_rows_are_locked_in_one_order() -> None:
    assert [line.item for line in basket(["b", "a", "c", "a"])] == ["a", "b", "c"]


@pytest.mark.parametrize("items", [[], [""], ["\ud800"], ["a\x00b"], ["a\nb"], ["x" * 201]])
def test_what_the_shop_does_not_sell(items: list[str]) -> None:
    with pytest.raises(InvalidInput):
        basket(items)


@pytest.mark.parametrize(("orders", "said"), [("0", "1 to 1,000,000"), ("1000001", "1 to 1,000,000"), ("", "a number")])
def test_numbers_of_orders_are_bounded(orders: str, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        chosen(orders, seed=1)


def test_number_means_generated_orders() -> None:
    assert chosen("3", seed=1) == list(generated(3, seed=1))
