"""One file of the journal, held by one process at a time. Everything here blocks.

Room is taken on the disk before it is needed: what is in flight when the disk fills can still be written down, and a
full disk is noticed before a request is forwarded whose settlement could not be.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

PREFIX = "settlements-"
ROOM_BYTES = 2**20
"""Taken ahead of what has been written; about a thousand settlements."""


class JournalFile:
    """An open file and its lock, which the kernel lets go of when the process ends, however it ends."""

    def __init__(self, path: Path, descriptor: int) -> None:
        """Take over a ``descriptor`` that is open and locked; ``create`` and ``adopt`` make one."""
        self.path = path
        self._descriptor = descriptor
        self._end = 0
        self._size = os.fstat(descriptor).st_size

    @classmethod
    def create(cls, folder: Path, store_name: str, prefix: str = PREFIX) -> JournalFile:
        """A new file for what ``store_name`` is owed, empty but with room. Raises OSError."""
        while True:
            path = folder / f"{prefix}{store_name}-{os.getpid()}-{secrets.token_hex(4)}"
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
            # Another process may have taken it for an orphan meanwhile.
            if _is_held(descriptor, path):
                break
            os.close(descriptor)
        file = cls(path, descriptor)
        try:
            file.make_room()
            sync_folder(folder)
        except OSError:
            file.remove()
            raise
        return file

    @classmethod
    def adopt(cls, folder: Path, store_name: str, prefix: str = PREFIX) -> Iterator[JournalFile]:
        """The files of processes that are gone and served the same store, each held from now on. Raises OSError."""
        for path in sorted(folder.glob(f"{prefix}{store_name}-*")):
            try:
                descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            if _is_held(descriptor, path):
                yield cls(path, descriptor)
            else:
                os.close(descriptor)

    def read(self) -> bytes:
        """All of it. Raises OSError."""
        return os.pread(self._descriptor, self._size, 0)

    def append(self, records: bytes) -> None:
        """Write ``records`` and see them on the disk. Raises OSError, and then none of them counts."""
        self._check_place()
        written = 0
        while written < len(records):
            written += os.pwrite(self._descriptor, records[written:], self._end + written)
        os.fdatasync(self._descriptor)
        self._end += len(records)

    def rewind(self) -> None:
        """Forget what was written, and keep the room. Raises OSError."""
        if self._end:
            os.pwrite(self._descriptor, b"\0" * self._end, 0)
            os.fdatasync(self._descriptor)
            self._end = 0

    def make_room(self) -> None:
        """See to it that as much as ``ROOM_BYTES`` can still be written. Raises OSError where it cannot."""
        self._check_place()
        wanted = self._end + ROOM_BYTES
        if self._size < wanted:
            os.posix_fallocate(self._descriptor, 0, wanted)
            self._size = wanted
        # Allocation says nothing of a disk that takes no writes any more.
        os.pwrite(self._descriptor, b"\0", wanted - 1)
        os.fdatasync(self._descriptor)

    def close(self) -> None:
        """Let go of it: what it holds is for the next process."""
        os.close(self._descriptor)

    def remove(self) -> None:
        """It holds nothing that the store does not."""
        with contextlib.suppress(OSError):
            self.path.unlink()
        self.close()

    @property
    def end(self) -> int:
        """How many bytes have been written."""
        return self._end

    def is_in_place(self) -> bool:
        """Whether it still has its name. Raises OSError."""
        try:
            return os.path.samestat(self.path.stat(), os.fstat(self._descriptor))
        except FileNotFoundError:
            return False

    def _check_place(self) -> None:
        """What is written to a file without a name is lost when it is closed."""
        if not os.path.samestat(self.path.stat(), os.fstat(self._descriptor)):
            raise FileNotFoundError(errno.ENOENT, "it has been replaced", str(self.path))


def _is_held(descriptor: int, path: Path) -> bool:
    """Take the lock; False where another process has it, or has done with the file and removed it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except (BlockingIOError, FileNotFoundError):
        return False


def sync_folder(folder: Path) -> None:
    """See to it that names made or changed in ``folder`` are on the disk. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
