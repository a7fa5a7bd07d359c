"""Tasks that providers have accepted: enough of each on the disk that whoever comes after can settle its request.

They have files of their own beside the journal's, one for each process that has followed a task, with the same lines. A
request's tasks are written down as they are accepted, and are done with when it has been settled.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from proxy.domain.billing.pending import PendingTask
from proxy.domain.billing.settlement import Delivery, Reservation, Served, Settlement, settle
from proxy.metering.journal.file import JournalFile
from proxy.metering.journal.journal import WRITE_TIMEOUT_S, name_of_store
from proxy.metering.journal.records import Posting, read_notes, read_records, write_note, write_record
from proxy.metering.private_folder import make_private_folder

logger = logging.getLogger(__name__)

T = TypeVar("T")

PREFIX = "tasks-"
COMPACT_BYTES = 2**20
"""A file this long is written anew, where most of it is about requests that have been settled."""


@dataclass(frozen=True, slots=True)
class PendingRequest:
    """A request that nobody waits for any more, and its tasks; ``settlement`` has its facts, and charges nothing."""

    settlement: Settlement
    tasks: tuple[PendingTask, ...]

    @property
    def reservation(self) -> Reservation:
        """What it has reserved."""
        return self.settlement.reservation


@dataclass(slots=True)
class _Adopted:
    """The file of a process that is gone, and the ids of those of its requests that are not settled yet."""

    file: JournalFile
    ids: set[str]


class TaskJournal:
    """The tasks of this process, written by one thread of its own; nothing is opened before the first of them."""

    def __init__(self, folder: Path, *, store_url: str) -> None:
        """Keep files in ``folder``. Those of another store than ``store_url`` are left alone there."""
        self._folder = folder
        self._store_name = name_of_store(store_url)
        self._file: JournalFile | None = None
        self._adopted: list[_Adopted] = []
        self._live: defaultdict[str, list[bytes]] = defaultdict(list)
        """The lines of the requests that are not settled yet, by their ids."""
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="task-journal")
        self._waiting: list[tuple[bytes, asyncio.Future[None] | None]] = []
        self._writing: asyncio.Task[None] | None = None

    async def keep(self, reservation: Reservation, task: PendingTask) -> bool:
        """Have a task on the disk; False where that cannot be, and only this process can settle the request."""
        provisional = settle(reservation, Delivery(served=Served(task.provider)))
        posting = write_record(Posting(provisional.without_answer())).decode()
        quote = reservation.quote
        reference = (quote.reference_images, quote.reference_units)
        line = write_note({"id": reservation.id, "task": asdict(task), "posting": posting, "reference": reference})
        self._live[reservation.id].append(line)
        written = asyncio.get_running_loop().create_future()
        self._write_soon(line, written)
        try:
            async with asyncio.timeout(WRITE_TIMEOUT_S):
                await asyncio.shield(written)
        except (OSError, TimeoutError) as error:
            logger.critical(
                "%s: its task at provider %s could not be written in %s (%r): if this gateway dies before it ends, "
                "it is settled as expired",
                *(reservation.id, task.provider, self._folder, error),
            )
            return False
        return True

    def settled(self, reservation_id: str) -> None:
        """The request has been settled, and its tasks are nobody's business any more."""
        if self._live.pop(reservation_id, None) is not None:
            self._write_soon(write_note({"done": reservation_id}), None)
        for adopted in list(self._adopted):
            adopted.ids.discard(reservation_id)
            if not adopted.ids:
                self._adopted.remove(adopted)
                self._thread.submit(adopted.file.remove)

    async def adopt(self) -> list[PendingRequest]:
        """The requests that processes which are gone have left here; they are this one's to settle from now on."""
        try:
            files = await self._run(self._read_orphans)
        except OSError as error:
            logger.error("%s cannot be looked through for tasks: %s", self._folder, error)
            return []
        found: list[PendingRequest] = []
        for file, content in files:
            requests = read_requests(content)
            if requests:
                logger.warning(
                    "%s: %d requests whose tasks were pending when their process ended", file.path, len(requests)
                )
                self._adopted.append(_Adopted(file, {request.reservation.id for request in requests}))
                found += requests
            else:
                await self._run(file.remove)
        return found

    async def close(self) -> None:
        """Close the files; what is not settled is left for the next process."""
        if self._writing is not None:
            await asyncio.wait((self._writing,), timeout=WRITE_TIMEOUT_S)
        file, self._file = self._file, None
        if file is not None:
            await self._run(file.close if self._live else file.remove)
        adopted, self._adopted = self._adopted, []
        for each in adopted:
            await self._run(each.file.close)
        # What was to be removed has been by then.
        await self._run(lambda: None)
        self._thread.shutdown(wait=False)

    # --- Writing ------------------------------------------------------------------------------------------------------

    def _write_soon(self, line: bytes, written: asyncio.Future[None] | None) -> None:
        self._waiting.append((line, written))
        if self._writing is None:
            self._writing = asyncio.get_running_loop().create_task(self._write_all())

    async def _write_all(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            live = [line for lines in self._live.values() for line in lines]
            error: OSError | None = None
            try:
                await self._run(partial(self._append, [line for line, _ in batch], live))
            except OSError as caught:
                error = caught
                logger.error("tasks cannot be written down in %s: %s", self._folder, caught)
            for _, written in batch:
                if written is None or written.done():
                    continue
                if error is None:
                    written.set_result(None)
                else:
                    written.set_exception(error)
        self._writing = None

    async def _run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    # --- In the thread ------------------------------------------------------------------------------------------------

    def _read_orphans(self) -> list[tuple[JournalFile, bytes]]:
        return [(file, file.read()) for file in JournalFile.adopt(self._folder, self._store_name, PREFIX)]

    def _append(self, lines: Sequence[bytes], live: Sequence[bytes]) -> None:
        """``live`` is all that is not settled yet, ``lines`` included where they are about that."""
        file = self._file
        if file is not None and not file.is_in_place():
            file.close()
            file = self._file = None
        if file is None:
            self._file = self._create(live)
        elif not live:
            file.rewind()
        elif file.end > COMPACT_BYTES and sum(map(len, live)) * 2 < file.end:
            # The new one is whole before the old one goes: a request that stands in both is settled once all the same.
            self._file = self._create(live)
            file.remove()
        else:
            file.append(b"".join(lines))

    def _create(self, live: Iterable[bytes]) -> JournalFile:
        make_private_folder(self._folder)
        file = JournalFile.create(self._folder, self._store_name, PREFIX)
        try:
            file.append(b"".join(live))
        except OSError:
            file.remove()
            raise
        return file


def _with_reference(settlement: Settlement, images: int, units: int) -> Settlement:
    """A settlement has its charge, and its record nothing that the charge could be worked out by."""
    reservation = settlement.reservation
    quote = replace(reservation.quote, reference_images=images, reference_units=units)
    return replace(settlement, reservation=replace(reservation, quote=quote))


def read_requests(content: bytes) -> list[PendingRequest]:
    """The requests in a file's ``content`` that were not settled. A line that is torn was never promised."""
    settlements: dict[str, Settlement] = {}
    tasks: defaultdict[str, list[PendingTask]] = defaultdict(list)
    for note in read_notes(content):
        if "done" in note:
            settlements.pop(note["done"], None)
            tasks.pop(note["done"], None)
            continue
        with contextlib.suppress(KeyError, TypeError, AttributeError):
            (posting,), _ = read_records(note["posting"].encode())
            if isinstance(posting, Posting):
                task = PendingTask(**note["task"])
                settlements[posting.id] = _with_reference(posting.settlement, *note["reference"])
                tasks[posting.id].append(task)
    return [PendingRequest(settlement, tuple(tasks[one])) for one, settlement in settlements.items()]


def requests_in(folder: Path) -> list[PendingRequest]:
    """The requests whose tasks are pending, of all processes that keep files in ``folder``. Raises OSError."""
    found: list[PendingRequest] = []
    for path in sorted(folder.glob(f"{PREFIX}*")):
        # Its process may have removed it meanwhile.
        with contextlib.suppress(FileNotFoundError):
            found += read_requests(path.read_bytes())
    return found
