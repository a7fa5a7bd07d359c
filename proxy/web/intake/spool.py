"""Where uploaded files are while their request lasts: in memory as long as they are small, then on the disk.

The file has no name, so that nothing is left of it however the process ends.
"""

from __future__ import annotations

import asyncio
import logging
import tempfile
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import BinaryIO, Self

from typing_extensions import override

from proxy.domain.errors import UploadsUnavailable
from proxy.domain.requests.inputs import Source
from proxy.machine.limits import SharedCount
from proxy.metering.private_folder import make_private_folder

logger = logging.getLogger(__name__)

MEMORY_BYTES_LIMIT = 2**20
BATCH_BYTES = 2**18
"""How much is written to the disk at once."""

THREADS = 4


class Spools:
    """Makes spools, whose files lie in one folder, and are not more than so many bytes together."""

    def __init__(
        self,
        folder: Path,
        *,
        max_disk_bytes: int,
        max_key_bytes: int | None = None,
        shared: SharedCount | None = None,
    ) -> None:
        """``folder`` is made when it is missing. One key's may take ``max_key_bytes`` of it.

        Where other processes serve beside this one, all together take no more than ``max_disk_bytes``: ``shared`` is
        what they have. A key's share is counted here alone.
        """
        self._shared = shared
        self.folder = folder
        self._max_disk_bytes = max_disk_bytes
        self._max_key_bytes = max_disk_bytes if max_key_bytes is None else max_key_bytes
        self._of_keys: Counter[str] = Counter()
        self.disk_bytes = 0
        self.threads = ThreadPoolExecutor(THREADS, "uploads")

    def prepare(self) -> None:
        """Make the folder, and see that something can be kept there. It blocks. Raises OSError."""
        make_private_folder(self.folder)
        with tempfile.TemporaryFile(dir=self.folder):
            pass

    def open(self, key_id: str = "") -> Spool:
        """One for one request of this key: a context."""
        return Spool(self, key_id)

    def take_room(self, key_id: str, size: int) -> None:
        """Count ``size`` bytes that are about to be on the disk. Raises UploadsUnavailable."""
        if self._of_keys[key_id] + size > self._max_key_bytes:
            logger.warning("uploads of key %s would be more than its share of server.max_upload_disk", key_id)
            raise UploadsUnavailable
        if self.disk_bytes + size > self._max_disk_bytes or (
            self._shared is not None and not self._shared.take(size, self._max_disk_bytes)
        ):
            logger.warning(
                "uploads on the disk would be more than the %d bytes of server.max_upload_disk: one was refused",
                self._max_disk_bytes,
            )
            raise UploadsUnavailable
        self.disk_bytes += size
        self._of_keys[key_id] += size

    def give_room(self, key_id: str, size: int) -> None:
        """Count ``size`` bytes less."""
        self.disk_bytes -= size
        if self._shared is not None:
            self._shared.give(size)
        self._of_keys[key_id] -= size
        if not self._of_keys[key_id]:
            del self._of_keys[key_id]

    def close(self) -> None:
        """End the threads that read and write."""
        self.threads.shutdown()


class Spool(Source):
    """The files of one request, one after the other. See ``Source`` for how they are read."""

    def __init__(self, spools: Spools, key_id: str) -> None:
        """Nothing is on the disk yet."""
        self._spools = spools
        self._key_id = key_id
        self._memory: bytearray | None = bytearray()
        self._batch: list[bytes] = []
        self._batch_bytes = 0
        self._file: BinaryIO | None = None
        self._disk_bytes = 0
        # What reads may still be under way in a thread when the request has ended.
        self._lock = Lock()

    async def __aenter__(self) -> Self:
        """Use it until the block is left."""
        return self

    async def __aexit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        """Let go of everything. A large file takes its time, which nobody has to wait for."""
        self._memory, self._batch = None, []
        self._spools.give_room(self._key_id, self._disk_bytes)
        if self._file is not None:
            self._spools.threads.submit(self._close)

    async def write(self, pieces: Iterable[bytes]) -> None:
        """Add ``pieces`` at the end. Raises UploadsUnavailable where there is no room for them."""
        for piece in pieces:
            if self._memory is not None and len(self._memory) + len(piece) <= MEMORY_BYTES_LIMIT:
                self._memory += piece
                continue
            if self._memory is not None:
                self._batch, self._batch_bytes = [bytes(self._memory)], len(self._memory)
                self._memory = None
            self._batch.append(piece)
            self._batch_bytes += len(piece)
            if self._batch_bytes >= BATCH_BYTES:
                await self._flush()

    async def end(self) -> None:
        """Nothing more is written. Raises UploadsUnavailable."""
        if self._batch:
            await self._flush()

    @override
    async def read(self, start: int, size: int) -> bytes:
        """Raises OSError, or ValueError after the request has ended."""
        if self._memory is not None:
            return bytes(self._memory[start : start + size])
        return await asyncio.get_running_loop().run_in_executor(self._spools.threads, self._read, start, size)

    async def _flush(self) -> None:
        batch, self._batch, self._batch_bytes = b"".join(self._batch), [], 0
        self._spools.take_room(self._key_id, len(batch))
        self._disk_bytes += len(batch)
        try:
            await asyncio.get_running_loop().run_in_executor(self._spools.threads, self._append, batch)
        except OSError as error:
            logger.error(
                "uploads cannot be kept in %s (%s): make room there, or set server.upload_folder",
                self._spools.folder,
                error.strerror,
            )
            raise UploadsUnavailable from error

    # --- In a thread --------------------------------------------------------------------------------------------------

    def _append(self, data: bytes) -> None:
        with self._lock:
            if self._file is None:
                make_private_folder(self._spools.folder)
                self._file = tempfile.TemporaryFile(  # noqa: SIM115 - it lasts as long as the request
                    buffering=0, dir=self._spools.folder
                )
            self._file.seek(0, 2)
            view = memoryview(data)
            while view:
                view = view[self._file.write(view) :]

    def _read(self, start: int, size: int) -> bytes:
        with self._lock:
            if self._file is None:
                raise ValueError("the spool is closed")
            self._file.seek(start)
            return self._file.read(size)

    def _close(self) -> None:
        with self._lock:
            if self._file is not None:
                self._file.close()
                self._file = None
