"""What customers order: baskets from a file, one order a line, or generated ones with a seed."""

from __future__ import annotations

import csv
import random
from collections import Counter
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

from faultproof.errors import InvalidInput

LINE_BYTES_MAX = 64 * 1024
ITEMS_MAX = 500
"""Different items in one order."""
NAME_BYTES_MAX = 200
ORDERS_MAX = 1_000_000

_NAMES = 150
_SKEW = 1.1
"""Zipf's exponent: the most popular of the 150 generated items is in about two of three baskets."""


class Line(NamedTuple):
    """One item of an order."""

    item: str
    quantity: int


Basket = tuple[Line, ...]
"""Its lines sorted by item, each item once."""


def basket(items: list[str]) -> Basket:
    """The items as lines: sorted, repeated ones added up.

    Sorted, because every transaction locks the items' rows in this order and so none waits for another in a circle.
    Raises `InvalidInput` for what the shop does not sell.
    """
    counted = Counter(items)
    if not 1 <= len(counted) <= ITEMS_MAX:
        raise InvalidInput(f"an order has 1 to {ITEMS_MAX} different items, not {len(counted)}")
    for item in counted:
        check_name(item)
    return tuple(Line(item, quantity) for item, quantity in sorted(counted.items()))


def check_name(item: str) -> None:
    """Raise `InvalidInput` unless this can be an item's name."""
    try:
        size = len(item.encode())
    except UnicodeEncodeError:  # a lone surrogate, which JSON can carry and UTF-8 cannot
        size = 0
    if not 1 <= size <= NAME_BYTES_MAX or any(character < " " for character in item):
        shown = item if len(item) <= 40 else item[:40] + "…"
        raise InvalidInput(
            f"an item's name has 1 to {NAME_BYTES_MAX} bytes and no control characters, unlike {shown!r}"
        )


def generated(count: int, *, seed: int) -> Iterator[Basket]:
    """`count` baskets of 1 to 10 items, skewed so that a few items are in most of them."""
    rng = random.Random(f"baskets-{seed}")  # noqa: S311  # a workload that can be repeated, not a secret
    names = [f"item {number:03}" for number in range(1, _NAMES + 1)]
    weights = list(accumulate(1 / rank**_SKEW for rank in range(1, _NAMES + 1)))
    for _ in range(count):
        yield basket(rng.choices(names, cum_weights=weights, k=rng.randint(1, 10)))


def read_baskets(path: Path) -> list[Basket]:
    """The baskets of a file: items separated by commas, quoted where they contain one; blank lines do not count.

    Raises `InvalidInput` with the line's number for what is no basket, before anything is ordered.
    """
    try:
        with path.open("rb") as file:
            found = list(_baskets(path, file.fileno()))
    except IsADirectoryError as error:
        raise InvalidInput(f"{path} is a directory: name a file with one order a line") from error
    except FileNotFoundError as error:
        raise InvalidInput(
            f"there is no file {path}: name one with an order a line, or give a number of orders"
        ) from error
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read ({error.strerror}): check its rights") from error
    if not found:
        raise InvalidInput(f"{path} has no orders in it: write one a line, its items separated by commas")
    return found


def _baskets(path: Path, descriptor: int) -> Iterator[Basket]:
    count = 0
    with open(descriptor, "rb", closefd=False) as file:
        # A limit for each line, so that a file without line ends does not fill the memory.
        for number, raw in enumerate(iter(lambda: file.readline(LINE_BYTES_MAX + 1), b""), start=1):
            where = f"line {number} of {path}"
            if len(raw) > LINE_BYTES_MAX:
                raise InvalidInput(f"{where} is longer than {LINE_BYTES_MAX} bytes: write one order a line")
            items = _items(raw, where, first=number == 1)
            if not items:
                continue
            count += 1
            if count > ORDERS_MAX:
                raise InvalidInput(f"{path} has more than {ORDERS_MAX:,} orders: split it")
            try:
                yield basket(items)
            except InvalidInput as error:
                raise InvalidInput(f"{where}: {error}") from error


def _items(raw: bytes, where: str, *, first: bool) -> list[str]:
    if b"\0" in raw:
        raise InvalidInput(f"{where} contains a NUL byte: this is no text file; name one with an order a line")
    try:
        text = raw.decode("utf-8-sig" if first else "utf-8").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{where} is not UTF-8 text: convert the file, or name another") from error
    try:
        fields = next(csv.reader([text], strict=True, skipinitialspace=True), [])
    except csv.Error as error:
        raise InvalidInput(
            f"{where} has a quotation mark that does not fit ({error}): double it or remove it"
        ) from error
    return [item for field in fields if (item := field.strip())]


def chosen(orders: str, *, seed: int) -> list[Basket]:
    """The baskets that `--orders` names: a number of generated ones, or a file."""
    if not orders:
        raise InvalidInput("name a file with an order a line, or give a number of orders")
    if not (orders.isdecimal() and orders.isascii()):
        return read_baskets(Path(orders))
    if not 1 <= len(orders) <= 9 or not 1 <= int(orders) <= ORDERS_MAX:
        raise InvalidInput(f"a run takes 1 to {ORDERS_MAX:,} orders, not {orders} (a file of that name is ./{orders})")
    return list(generated(int(orders), seed=seed))
