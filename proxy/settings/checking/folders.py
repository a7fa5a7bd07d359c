"""Whether folders can be written to, before anything depends on it."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path


def unwritable(folders: Mapping[str, Path]) -> Iterator[str]:
    """A line for each of ``folders`` that cannot be written to, led by its setting. Nothing is made.

    What lies in a folder that has been told is not told as well.
    """
    told: list[Path] = []
    for setting, folder in folders.items():
        why = None if any(folder.is_relative_to(other) for other in told) else why_unwritable(folder)
        if why is not None:
            told.append(folder)
            yield tell_unwritable(setting, folder, why)


def tell_unwritable(setting: str, folder: Path, why: str) -> str:
    """The line."""
    return f"{setting}: {folder} cannot be written to ({why}): name another folder, or let this process's user write"


def why_unwritable(folder: Path) -> str | None:
    """Why nothing could be kept in ``folder``, None where it could. A folder that is missing is not made."""
    try:
        if folder.exists():
            with tempfile.TemporaryFile(dir=folder):
                return None
        nearest = next(each for each in folder.absolute().parents if each.exists())
        if not nearest.is_dir():
            return os.strerror(errno.ENOTDIR)
        return None if os.access(nearest, os.W_OK | os.X_OK) else os.strerror(errno.EACCES)
    except OSError as error:
        return error.strerror or str(error)
