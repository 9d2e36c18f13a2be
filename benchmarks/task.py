"""Another process for a contestant: `python -m benchmarks.task MODULE:FUNCTION ARGUMENT…` runs an async function there."""

from __future__ import annotations

import asyncio
import sys
from importlib import import_module
from pathlib import Path


async def spawn(function: str, *arguments: str) -> asyncio.subprocess.Process:
    """Start it, with pipes at both ends. It is in the contestant's process group, and ends with it."""
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "benchmarks.task",
        function,
        *arguments,
        cwd=Path(__file__).parents[1],
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )


def main() -> None:
    """Run the function."""
    module, _, function = sys.argv[1].partition(":")
    asyncio.run(getattr(import_module(module), function)(*sys.argv[2:]))


if __name__ == "__main__":
    main()
