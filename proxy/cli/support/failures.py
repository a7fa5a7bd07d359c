"""What a command says where the machine does not let it go on: one line with what to do, never a traceback."""

from __future__ import annotations

import errno
import os
from pathlib import Path

NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
NO_RIGHT = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
STANDARD_DESCRIPTORS = (0, 1, 2)


def explain(error: OSError) -> str:
    """One line. An error without a file's name is one of the output."""
    where = "the output" if error.filename is None else Path(os.fsdecode(error.filename))
    why = f"{where}: {error.strerror or error}"
    if error.errno in NO_ROOM:
        return f"{why}: make room there, or write elsewhere"
    if error.errno in NO_RIGHT:
        return f"{why}: name another place, or run this as a user who may write there"
    return why


def open_standard_descriptors() -> None:
    """Open those that the process was started without: a socket of that number would get what is meant for a terminal.

    Input is at its end then, and output goes nowhere.
    """
    for descriptor in STANDARD_DESCRIPTORS:
        try:
            os.fstat(descriptor)
        except OSError:
            # The lowest number that is free, which is this one.
            os.open(os.devnull, os.O_RDONLY if descriptor == 0 else os.O_WRONLY)
