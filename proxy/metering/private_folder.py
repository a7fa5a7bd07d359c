"""Folders that only this user may look into: they hold hashes of keys, the ledger, uploads and answers."""

from __future__ import annotations

from pathlib import Path

PRIVATE = 0o700


def make_private_folder(folder: Path) -> None:
    """Make ``folder`` and what is missing on the way to it, each for this user alone. Raises OSError.

    ``Path.mkdir`` gives its mode to the last of them only. A folder that is there already keeps its mode: it may be
    somebody's home.
    """
    for each in reversed((folder, *folder.parents)):
        if not each.exists():
            each.mkdir(mode=PRIVATE, exist_ok=True)
    # Says so where the name is taken by a file.
    folder.mkdir(mode=PRIVATE, exist_ok=True)


def take_back_from_others(folder: Path) -> None:
    """Let nobody else into a folder of our own that an earlier version made for all to read. Raises OSError."""
    if folder.is_dir():
        folder.chmod(PRIVATE)
