"""How a supervisor becomes another program, of a newer version, in the same process: by execve(2).

Sockets, shared memory, the store and all workers stay this process's own; what the next program has to know of them is
written to memory that only its descriptor leads to. Signals wait until the next program listens to them.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import tempfile
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Any, NoReturn

import orjson

VARIABLE = "LIGHTMETER_HANDED_OVER"
"""Holds what a process has of its supervisor, or of the program before it."""

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
TRIAL_S = 60.0
SAID_LENGTH = 2_000


class TrialError(Exception):
    """A new program would not come up; the message is its own."""


def handed_over(environment: MutableMapping[str, str]) -> Mapping[str, Any] | None:
    """What was handed over to this process; nobody else gets to see it."""
    given = environment.pop(VARIABLE, None)
    return None if given is None else dict(json.loads(given))


def command(path: Path | str) -> list[str]:
    """What serves with the configuration at ``path``, in a fresh interpreter that finds this package as this one has.

    Only where this process looks in its own folder first, the new one does (``-P``, since Python 3.11).
    """
    try:
        own = str(Path.cwd())
    except OSError:
        # It has been removed: nobody looks there.
        own = ""
    flags = [] if sys.path[0] in ("", own) else ["-P"]
    return [sys.executable, *flags, "-m", "proxy.cli", "serve", "--config", str(path)]


async def try_out(path: Path) -> None:
    """Have a process of its own do all that can fail before there is no way back. Raises TrialError."""
    environment = {**os.environ, VARIABLE: json.dumps({"trial": True})}
    try:
        process = await asyncio.create_subprocess_exec(
            *command(path),
            env=environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
    except OSError as error:
        raise TrialError(f"{sys.executable} cannot be run: {error.strerror}") from None
    try:
        async with asyncio.timeout(TRIAL_S):
            said, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        raise TrialError(f"it did not come up within {TRIAL_S:g} seconds") from None
    if process.returncode:
        raise TrialError(said.decode(errors="replace").strip()[-SAID_LENGTH:] or f"exit status {process.returncode}")


def become(path: Path, handed: Mapping[str, Any]) -> NoReturn:
    """Run the command for ``path`` in the place of this program, with what is ``handed`` over. Raises OSError."""
    # No folder of temporary files may be there, or have room.
    with os.fdopen(os.memfd_create("handed"), "w+b") if sys.platform == "linux" else tempfile.TemporaryFile() as file:
        file.write(orjson.dumps(handed))
        file.flush()
        os.set_inheritable(file.fileno(), True)
        environment = {**os.environ, VARIABLE: json.dumps({"supervisor": file.fileno()})}
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        os.execve(sys.executable, command(path), environment)  # noqa: S606 - it is this process's own command


def read_handed(descriptor: int) -> dict[str, Any]:
    """What the program before has handed over."""
    with os.fdopen(descriptor, "rb") as file:
        file.seek(0)
        handed: dict[str, Any] = orjson.loads(file.read())
    return handed
