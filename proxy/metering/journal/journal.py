"""The journal: what the store has not stored yet, on a disk of this machine, before it counts as written down.

Each process has a file of its own, so several may share a folder. The file of a process that is gone is adopted by
another, now or at the next start, and removed when the store has taken all that it holds.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from proxy.metering.journal.file import PREFIX, JournalFile
from proxy.metering.journal.parked import count_parked, is_set_aside, park
from proxy.metering.journal.records import JournalRecord, read_records, write_record
from proxy.metering.private_folder import make_private_folder
from proxy.telemetry.metrics import Metrics

logger = logging.getLogger(__name__)

T = TypeVar("T")

WRITE_TIMEOUT_S = 10.0
"""A disk that takes longer than this to write a record is as good as none."""


class JournalError(Exception):
    """The journal cannot be written; the message says why and what to do."""


def name_of_store(url: str) -> str:
    """Eight hexadecimal digits for a store's place, without its password or its options."""
    parts = urlsplit(url)
    place = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    return sha256(place.encode()).hexdigest()[:8]


@dataclass(slots=True)
class _Adopted:
    """The file of a process that is gone, and the ids in it that the store has not taken yet."""

    file: JournalFile
    ids: set[str]


class Journal:
    """The file of this process, written by one thread of its own, many records at a time."""

    def __init__(self, folder: Path, metrics: Metrics, *, store_url: str) -> None:
        """Keep files in ``folder``; nothing is opened yet.

        What is owed to another store than ``store_url`` is left alone there.
        """
        self.folder = folder
        self._store_name = name_of_store(store_url)
        self.healthy = True
        """Whether the last attempt to write succeeded: where it did not, nothing more should be promised."""
        self._metrics = metrics
        self._file: JournalFile | None = None
        self._adopted: list[_Adopted] = []
        self._live: set[str] = set()
        """Ids in this process's own file that the store has not taken."""
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="journal")
        self._waiting: list[tuple[bytes, asyncio.Future[None]]] = []
        self._writing: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Make the folder and this process's file. Raises JournalError."""
        try:
            await self._run(self._create)
        except OSError as error:
            self._thread.shutdown(wait=False)
            raise JournalError(
                f"{self.folder}: the journal cannot be kept there ({error.strerror}): make it a folder that can be "
                "written, or set server.data_folder (with an embedded store, store.url) to one"
            ) from None
        self._metrics.journal_health(healthy=True)
        others = await self._run(self._others)
        if others:
            logger.error(
                "%s holds settlements of another store.url, which are left alone: %s. Start a gateway with that "
                "store.url on this folder; where it is the same store under another name, put %s in place of the "
                "other in the files' names",
                self.folder,
                ", ".join(others),
                self._store_name,
            )

    async def write(self, owed: Iterable[JournalRecord]) -> None:
        """Have these on the disk. Raises JournalError; being cancelled does not stop it."""
        written = asyncio.get_running_loop().create_future()
        records = list(owed)
        self._waiting.append((b"".join(map(write_record, records)), written))
        self._live.update(each.id for each in records)
        if self._writing is None:
            self._writing = asyncio.create_task(self._write_all())
        try:
            async with asyncio.timeout(WRITE_TIMEOUT_S):
                await asyncio.shield(written)
        except TimeoutError:
            self._note_health(OSError(0, f"nothing was written within {WRITE_TIMEOUT_S:g} seconds"))
            raise JournalError("the journal takes too long") from None

    async def adopt(self) -> list[JournalRecord]:
        """What processes that are gone have left here; it is this one's to post from now on."""
        found: list[JournalRecord] = []
        try:
            adopted = await self._run(self._read_adopted)
        except OSError as error:
            logger.error("%s cannot be looked through: %s", self.folder, error)
            return found
        for file, content in adopted:
            left, damaged = read_records(content)
            records = await self._run(partial(self._still_owed, left))
            if damaged:
                logger.error("%s: %d record(s) were torn when its process died, and are left out", file.path, damaged)
            if records:
                logger.warning("%s: %d settlements that the store has not taken yet", file.path, len(records))
                self._adopted.append(_Adopted(file, {owed.id for owed in records}))
                found += records
            else:
                await self._run(file.remove)
        return found

    async def taken(self, ids: Sequence[str]) -> None:
        """The store has taken these, or they are parked."""
        self._live.difference_update(ids)
        for adopted in list(self._adopted):
            adopted.ids.difference_update(ids)
            if not adopted.ids:
                self._adopted.remove(adopted)
                await self._run(adopted.file.remove)
        # Nothing may be awaited between this look and handing the work to the thread: what is written down from now on
        # comes after it there, and what came before is seen here.
        if not self._live and self._file is not None:
            # What stays in it is posted once more at the next start, and changes nothing there.
            with contextlib.suppress(OSError):
                await self._run(self._file.rewind)

    async def park(self, owed: JournalRecord, reason: str) -> Path:
        """Keep it for a person to decide, in a file of its own; call ``taken`` then. Raises OSError."""
        return await self._run(partial(park, self.folder, self._store_name, owed, reason))

    async def count_parked(self) -> None:
        """Tell the metrics how many records wait for a person."""
        self._metrics.journal_parked(await self._run(partial(count_parked, self.folder, self._store_name)))

    async def probe(self) -> bool:
        """See whether it can be written; True where it can again and could not before."""
        was_healthy = self.healthy
        try:
            async with asyncio.timeout(WRITE_TIMEOUT_S):
                await self._run(self._make_room)
        except TimeoutError:
            self._note_health(OSError(0, f"nothing was written within {WRITE_TIMEOUT_S:g} seconds"))
        except OSError as error:
            self._note_health(error)
        else:
            self._note_health(None)
        return self.healthy and not was_healthy

    async def close(self) -> None:
        """Close the files, and remove this process's own where the store has taken all of it."""
        if self._writing is not None:
            await asyncio.wait((self._writing,), timeout=WRITE_TIMEOUT_S)
        file, self._file = self._file, None
        if file is not None:
            await self._run(file.close if self._live else file.remove)
        adopted, self._adopted = self._adopted, []
        for each in adopted:
            await self._run(each.file.close)
        self._thread.shutdown(wait=False)

    # --- In the thread ------------------------------------------------------------------------------------------------

    def _create(self) -> None:
        make_private_folder(self.folder)
        self._file = JournalFile.create(self.folder, self._store_name)

    def _others(self) -> list[str]:
        own = f"{PREFIX}{self._store_name}-"
        return sorted(path.name for path in self.folder.glob(f"{PREFIX}*") if not path.name.startswith(own))

    def _read_adopted(self) -> list[tuple[JournalFile, bytes]]:
        return [(file, file.read()) for file in JournalFile.adopt(self.folder, self._store_name)]

    def _still_owed(self, records: list[JournalRecord]) -> list[JournalRecord]:
        """Without those that its process parked, or a person dropped, and that stood in the file when it died."""
        return [owed for owed in records if not is_set_aside(self.folder, self._store_name, owed.id)]

    def _make_room(self) -> None:
        if self._file is None:
            return
        try:
            self._file.make_room()
        except FileNotFoundError:
            lost = self._file
            self._create()
            lost.close()
            raise OSError(0, "its file was removed, and a new one has been made") from None

    def _append(self, records: bytes) -> None:
        if self._file is None:
            raise OSError(0, "it has been closed")
        self._file.append(records)

    # --- Around it ----------------------------------------------------------------------------------------------------

    async def _run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def _write_all(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            error: OSError | None = None
            try:
                await self._run(partial(self._append, b"".join(records for records, _ in batch)))
            except OSError as caught:
                error = caught
            except Exception as caught:
                logger.exception("the journal met something unforeseen")
                error = OSError(0, repr(caught))
            self._note_health(error)
            for _, written in batch:
                if written.done():
                    continue
                if error is None:
                    written.set_result(None)
                else:
                    written.set_exception(JournalError(str(error)))
        self._writing = None

    def _note_health(self, error: OSError | None) -> None:
        healthy = error is None
        if healthy == self.healthy:
            return
        self.healthy = healthy
        self._metrics.journal_health(healthy=healthy)
        if healthy:
            logger.warning("the journal in %s can be written again", self.folder)
        else:
            logger.critical(
                "the journal in %s cannot be written (%s): requests get 503 until it can; free space there, "
                "or set server.data_folder to a folder that can be written",
                self.folder,
                error.strerror or error if error else "",
            )
