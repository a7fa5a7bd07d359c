"""A folder of JSON lines, one file a month or a day.

Beside the files lies a small database, which has the length of each file and the place in each team's ledger. A batch
is appended, synced, and counts when the database has both. What a crash leaves behind a file's length is cut off by the
next writer, so no line is lost or doubled.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from decimal import Decimal
from pathlib import Path
from typing import Literal

import orjson

from proxy.shipping.batch import Batch
from proxy.shipping.errors import PlaceMoved, ShippingError, Unavailable
from proxy.shipping.source import Head

STATE = "state.sqlite"
LOCK = "state.lock"
LENGTHS = {"month": len("YYYY-MM"), "day": len("YYYY-MM-DD")}
SCHEMA = """
create table if not exists place (team text primary key, entry text not null) without rowid;
create table if not exists file (name text primary key, bytes integer not null) without rowid;
"""


class JsonLines:
    """A sink. An entry's file is that of the UTC month or day that it was written to the ledger in."""

    def __init__(self, folder: Path, by: Literal["month", "day"]) -> None:
        """Open ``folder``, which is made where there is none. Raises ShippingError."""
        self._folder = folder
        self._date_length = LENGTHS[by]
        with ExitStack() as parts:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                lock = parts.enter_context((folder / LOCK).open("ab"))
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._state = sqlite3.connect(folder / STATE, isolation_level=None)
                parts.callback(self._state.close)
                # Synced with the folder, too: what it says of files must not be forgotten after they were reported.
                self._state.execute("pragma synchronous = extra")
                self._state.executescript(SCHEMA)
                self._cut_files()
            except BlockingIOError:
                raise ShippingError(f"another shipper writes to {folder}") from None
            except (OSError, sqlite3.Error) as error:
                raise ShippingError(f"{folder} cannot be used: {error}") from None
            self._parts = parts.pop_all()

    async def places(self, heads: Sequence[Head]) -> Mapping[str, str]:
        """The last entry of each of these teams."""
        places = {}
        for head in heads:
            found = self._state.execute("select entry from place where team = ?", (head.team,)).fetchone()
            if found is not None:
                places[head.team] = found[0]
        return places

    async def write(self, batch: Batch, _units_per_usd: Decimal | None) -> int:
        """Append a batch to its files."""
        for team, start in batch.starts.items():
            found = self._state.execute("select entry from place where team = ?", (team,)).fetchone()
            if (found and found[0]) != start:
                raise PlaceMoved(team)
        lines: defaultdict[str, list[bytes]] = defaultdict(list)
        for entry in batch.entries:
            lines[f"ledger-{entry['at'][: self._date_length]}.jsonl"].append(orjson.dumps(entry) + b"\n")
        try:
            lengths = {name: self._append(name, b"".join(content)) for name, content in lines.items()}
            with self._state:
                self._state.execute("begin immediate")
                self._state.executemany(
                    "update file set bytes = ? where name = ?", [(n, f) for f, n in lengths.items()]
                )
                self._state.executemany("replace into place values (?, ?)", batch.ends.items())
        except (OSError, sqlite3.Error) as error:
            raise Unavailable(f"{self._folder} takes nothing more ({error})") from None
        return 0

    async def close(self) -> None:
        """Close the database, and let others in."""
        self._parts.close()

    def _append(self, name: str, content: bytes) -> int:
        """Write behind what counts of a file, and sync it; its length then."""
        found = self._state.execute("select bytes from file where name = ?", (name,)).fetchone()
        if found is None:
            if (self._folder / name).exists():
                raise ShippingError(f"{self._folder / name} is not of this shipper: name another folder, or move it")
            # Before the file is there, so that no line in it is ever one that nobody knows of.
            self._state.execute("insert into file values (?, 0)", (name,))
        length: int = found[0] if found else 0
        with (self._folder / name).open("ab") as file:
            size = file.tell()
            if size == 0:
                # Moved away since.
                length = 0
            elif size < length:
                raise ShippingError(_too_short(self._folder / name, size, length))
            file.truncate(length)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if not length:
            self._sync_folder()
        return length + len(content)

    def _cut_files(self) -> None:
        """Bring each file to the length that counts; one that was moved away begins anew."""
        for name, length in self._state.execute("select name, bytes from file").fetchall():
            path = self._folder / name
            try:
                found = path.stat().st_size
            except FileNotFoundError:
                self._state.execute("update file set bytes = 0 where name = ?", (name,))
                continue
            if found < length:
                raise ShippingError(_too_short(path, found, length))
            if found > length:
                os.truncate(path, length)

    def _sync_folder(self) -> None:
        descriptor = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _too_short(path: Path, found: int, should_be: int) -> str:
    return f"{path} has {found} bytes, and should have {should_be}: put the whole file back, or move it away"
