"""Certificates of an authority of the tests' own, made by openssl."""

import subprocess
from pathlib import Path
from typing import NamedTuple


class Pair(NamedTuple):
    cert: Path
    key: Path


def authority(folder: Path, name: str = "ca") -> Pair:
    """Somebody to trust."""
    return _made(folder, name, ["-x509", "-subj", f"/CN={name}"])


def signed(folder: Path, by: Pair, name: str) -> Pair:
    """A certificate for a host name."""
    host = ["-addext", f"subjectAltName=DNS:{name}", "-addext", "basicConstraints=CA:FALSE"]
    return _made(folder, name, ["-x509", "-subj", f"/CN={name}", *host, "-CA", str(by.cert), "-CAkey", str(by.key)])


def _made(folder: Path, name: str, options: list[str]) -> Pair:
    pair = Pair(folder / f"{name}.pem", folder / f"{name}.key")
    new = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    command = ["openssl", "req", *new, *options, "-keyout", str(pair.key), "-out", str(pair.cert)]
    subprocess.run(command, check=True, capture_output=True)
    return pair
