"""Records that the store refuses every time, each in a file of its own beside the journal, until a person decides.

A parked file holds the record as the journal had it, and a note with the reason. To retry it is to give the file a
journal's name: any gateway on the folder adopts it. Everything here blocks.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from proxy.metering.journal.file import PREFIX, sync_folder
from proxy.metering.journal.records import JournalRecord, read_notes, read_records, write_note, write_record

PARKED = "parked-"
DROPPED = "dropped-"


@dataclass(frozen=True, slots=True)
class ParkedRecord:
    """One record that waits for a person, and what its note says of it."""

    path: Path
    owed: JournalRecord
    note: dict[str, Any]

    @property
    def store_name(self) -> str:
        """The store that it is owed to, as in the names of files."""
        return self.path.name.split("-")[1]


def park(folder: Path, store_name: str, owed: JournalRecord, reason: str) -> Path:
    """Write ``owed`` down on its own, and see it on the disk. Raises OSError."""
    path = folder / f"{PARKED}{store_name}-{quote(owed.id, safe='')}"
    note = write_note({"reason": reason, "parked_at": int(time.time())})
    unfinished = folder / f".{path.name}-{secrets.token_hex(4)}"
    try:
        with open(unfinished, "xb", opener=_private) as file:
            file.write(write_record(owed) + note)
            file.flush()
            os.fsync(file.fileno())
        unfinished.rename(path)
    except OSError:
        unfinished.unlink(missing_ok=True)
        raise
    sync_folder(folder)
    return path


def count_parked(folder: Path, store_name: str) -> int:
    """How many records of one store are parked. Raises OSError."""
    return sum(1 for _ in folder.glob(f"{PARKED}{store_name}-*"))


def is_set_aside(folder: Path, store_name: str, owed_id: str) -> bool:
    """Whether a record is parked or dropped, so that no gateway may post it."""
    name = f"{store_name}-{quote(owed_id, safe='')}"
    return any((folder / f"{kind}{name}").exists() for kind in (PARKED, DROPPED))


def parked_records(folder: Path) -> list[ParkedRecord]:
    """All that is parked, for whichever store. Raises OSError."""
    found = []
    for path, content in _contents(folder, PARKED):
        notes = read_notes(content)
        found += [ParkedRecord(path, owed, notes[-1] if notes else {}) for owed in read_records(content)[0]]
    return found


def pending_records(folder: Path) -> dict[str, JournalRecord]:
    """What journal files hold, by id; the store may have taken some of it already. Raises OSError."""
    return {owed.id: owed for _, content in _contents(folder, PREFIX) for owed in read_records(content)[0]}


def retry(parked: ParkedRecord) -> None:
    """Leave it to the next gateway that looks for the files of processes that are gone. Raises OSError."""
    parked.path.rename(parked.path.with_name(f"{PREFIX}{parked.store_name}-retry-{secrets.token_hex(4)}"))
    sync_folder(parked.path.parent)


def drop(parked: ParkedRecord, reason: str) -> Path:
    """Never post it; the record stays readable, with the reason, under another name. Raises OSError."""
    with parked.path.open("ab") as file:
        file.write(write_note({**parked.note, "dropped_because": reason, "dropped_at": int(time.time())}))
        file.flush()
        os.fsync(file.fileno())
    dropped = parked.path.with_name(DROPPED + parked.path.name.removeprefix(PARKED))
    parked.path.rename(dropped)
    sync_folder(parked.path.parent)
    return dropped


def _contents(folder: Path, prefix: str) -> Iterator[tuple[Path, bytes]]:
    for path in sorted(folder.glob(f"{prefix}*")):
        try:
            yield path, path.read_bytes()
        except FileNotFoundError:
            # Its process has removed it meanwhile.
            continue


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o600)
