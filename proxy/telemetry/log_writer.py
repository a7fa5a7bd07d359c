"""Lines of a log, written by a thread of their own: a reader that stands still must not keep the event loop.

What waits is bounded. Past that bound new lines are dropped and counted; a line of the log says how many, as soon as
it is read again.
"""

from __future__ import annotations

import os
import select
import time
from collections import deque
from datetime import UTC, datetime
from threading import Condition, Thread

import orjson

WAITING_BYTES = 4 * 2**20
"""What may wait for the reader: some 10,000 requests."""

PIECE_BYTES = 65_536
"""Of one write: what a pipe holds on Linux."""

RETRY_MS = 100
"""Between two looks at a descriptor that somebody else has made non-blocking."""

FLUSH_S = 2.0


class LogWriter:
    """Writes to one file descriptor. Any thread may use it, and a line within a line (of ``__del__``) as well."""

    def __init__(self, descriptor: int | None, *, waiting_bytes: int = WAITING_BYTES) -> None:
        """Write to a duplicate of ``descriptor``, or nowhere; at most ``waiting_bytes`` wait. Raises OSError."""
        self.dropped_lines = 0
        """How many were dropped since the start, or could not be written."""
        self._told_lines = 0
        self._descriptor = None if descriptor is None else os.dup(descriptor)
        self._limit_bytes = waiting_bytes
        self._waiting: deque[tuple[bytes, int]] = deque()
        self._waiting_bytes = 0
        self._closed = False
        # Its lock is one that the same thread may take twice.
        self._changed = Condition()
        self._thread: Thread | None = None

    def write(self, text: bytes, lines: int = 1) -> None:
        """Have ``text``, which is ``lines`` whole lines, written soon; never waits."""
        if self._descriptor is None:
            return
        with self._changed:
            if self._closed or self._waiting_bytes + len(text) > self._limit_bytes:
                self.dropped_lines += lines
                return
            self._waiting.append((text, lines))
            self._waiting_bytes += len(text)
            if self._thread is None:
                # Not before: a process that forks, or never logs, has no use for it.
                self._thread = Thread(target=self._write_all, args=(self._descriptor,), name="log", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def flush(self, timeout_s: float = FLUSH_S) -> bool:
        """Wait until all is written, at most ``timeout_s`` seconds; whether it is."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._waiting_bytes, timeout_s)

    def close(self, timeout_s: float = FLUSH_S) -> None:
        """Write what waits, for at most ``timeout_s`` seconds, and take nothing more."""
        self.flush(timeout_s)
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            if self._thread is None and self._descriptor is not None:
                os.close(self._descriptor)
                self._descriptor = None

    # --- The thread ---------------------------------------------------------------------------------------------------

    def _write_all(self, descriptor: int) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if self._closed:
                    break
                text, lines = self._waiting.popleft()
            written = _put(descriptor, text)
            with self._changed:
                self._waiting_bytes -= len(text)
                if not written:
                    self.dropped_lines += lines
                elif self.dropped_lines > self._told_lines:
                    self._report_dropped()
                self._changed.notify_all()
        os.close(descriptor)

    def _report_dropped(self) -> None:
        """The next line to be written says how many are missing before it."""
        count, self._told_lines = self.dropped_lines - self._told_lines, self.dropped_lines
        line = {
            "time": datetime.fromtimestamp(time.time(), UTC).isoformat(timespec="milliseconds"),
            "level": "warning",
            "logger": __name__,
            "message": f"{count} lines of this log were dropped: it was not read, or could not be written",
            "dropped_lines": count,
        }
        text = orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)
        self._waiting.appendleft((text, 1))
        self._waiting_bytes += len(text)


def _put(descriptor: int, text: bytes) -> bool:
    """Write ``text``, however long that takes; whether it was taken."""
    rest = memoryview(text)
    while rest:
        try:
            rest = rest[os.write(descriptor, rest[:PIECE_BYTES]) :]
        except BlockingIOError:
            poll = select.poll()
            poll.register(descriptor, select.POLLOUT)
            poll.poll(RETRY_MS)
        except OSError:
            return False
    return True
