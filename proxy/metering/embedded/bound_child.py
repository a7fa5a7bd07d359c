"""A program that ends when its parent does, however that ends: ``python bound_child.py PARENT PROGRAM ARGUMENT…``.

It becomes the program (``execv``), after the kernel was asked to send SIGTERM when the parent, process ``PARENT``, is
gone (``PR_SET_PDEATHSIG``, see prctl(2); on Linux, elsewhere nothing). What the program writes is this user's alone.

This file is run by its path, in an interpreter that has loaded nothing: it may import the standard library only.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from pathlib import Path

PR_SET_PDEATHSIG = 1
PRIVATE_UMASK = 0o077


def command_of(program: str, *arguments: str) -> tuple[str, ...]:
    """The command that runs ``program``, an absolute path, bound to this process.

    The kernel sends the signal when the thread ends that started the command, so it should be the main thread.
    """
    return (sys.executable, "-I", "-S", str(Path(__file__).resolve()), str(os.getpid()), program, *arguments)


def _become(parent: int, program: str, arguments: list[str]) -> None:
    os.umask(PRIVATE_UMASK)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    # The parent may have gone before the kernel was asked.
    if os.getppid() != parent:
        sys.exit(f"{program}: the process that started it is gone")
    try:
        os.execv(program, [program, *arguments])  # noqa: S606 - it is what this file is for
    except OSError as error:
        sys.exit(f"{program} cannot be run: {error.strerror}")


if __name__ == "__main__":
    _become(int(sys.argv[1]), sys.argv[2], sys.argv[3:])
