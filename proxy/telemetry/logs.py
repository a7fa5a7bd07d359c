"""Logs as JSON, one object a line, on standard error; written by a thread, so that nobody waits for their reader.

A request's line never holds a prompt, a key's text or an image. Lines of requests are gathered and written a few
times a second: one by one, they would be a good part of the gateway's work on a small answer.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from datetime import UTC, datetime
from functools import cache, lru_cache
from time import time

import orjson

from proxy.telemetry.log_writer import LogWriter
from proxy.telemetry.observation import Observation
from proxy.telemetry.secrets import KNOWN_SECRETS

FLUSH_AFTER_S = 0.2
REQUESTS_A_BATCH = 64


class JsonFormatter(logging.Formatter):
    """A log record as one JSON object."""

    def format(self, record: logging.LogRecord) -> str:
        """Time, level, where it comes from, and the message; the traceback where there is one. No known secret."""
        line = {
            "time": _iso(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        # Within the texts: in JSON, an escape may stand beside the first letter of a secret.
        return orjson.dumps({name: KNOWN_SECRETS.remove(text) for name, text in line.items()}).decode()


class WriterHandler(logging.Handler):
    """Gives each record to a writer; what it has is written when ``logging`` ends, at the end of the process."""

    def __init__(self, writer: LogWriter) -> None:
        """Format as JSON."""
        super().__init__()
        self._writer = writer
        self.setFormatter(JsonFormatter())

    def emit(self, record: logging.LogRecord) -> None:
        """Never waits."""
        try:
            self._writer.write(self.format(record).encode() + b"\n")
        except Exception:
            # A record that cannot be formatted must not break who logs it.
            self.handleError(record)

    def flush(self) -> None:
        """Wait for the writer, within its bound."""
        self._writer.flush()


@cache
def standard_error() -> LogWriter:
    """The one writer of this process's standard error."""
    # There is none where the process was started without one (``2>&-``).
    return LogWriter(None if sys.__stderr__ is None else sys.__stderr__.fileno())


def set_up_logs(level: str) -> None:
    """Send every log record to standard error as JSON."""
    handler = WriterHandler(standard_error())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # It repeats every failed task that we report ourselves, with the request's text in it.
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)
    # It warns of each form that is not well-formed, which is its client's to know.
    logging.getLogger("python_multipart").setLevel(logging.ERROR)


class RequestLog:
    """One line for each request."""

    def __init__(self, writer: LogWriter | None = None) -> None:
        """Give the lines to ``writer``, or to nobody."""
        self._writer = writer
        self._ended: list[tuple[Observation, float, float]] = []
        self._timer: asyncio.TimerHandle | None = None

    def write(self, observation: Observation, ended: float) -> None:
        """Note a request that has been answered."""
        if self._writer is None:
            return
        self._ended.append((observation, ended, time()))
        if len(self._ended) >= REQUESTS_A_BATCH:
            self.flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(FLUSH_AFTER_S, self.flush)

    def flush(self) -> None:
        """Give the writer what has been gathered."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._ended and self._writer is not None:
            requests, self._ended = self._ended, []
            self._writer.write(b"".join(_line(*request) for request in requests), len(requests))


def _line(observation: Observation, ended: float, at: float) -> bytes:
    line = {
        "time": _time(at),
        "level": "info",
        "message": "request",
        "request_id": observation.request_id,
        "client": observation.client,
        "endpoint": observation.endpoint,
        "status": observation.status,
        "outcome": observation.outcome,
        "error": observation.error,
        "key": observation.key_id,
        "model": observation.model,
        "images": observation.images,
        "units": observation.charged_units,
        "provider": observation.provider,
        "provider_status": observation.provider_status,
        "provider_error": observation.provider_error,
        "attempts": int(bool(observation.provider)) if observation.attempts is None else observation.attempts,
        "provider_ms": _ms(observation.provider_s),
        "own_ms": _ms(observation.own_s(ended)),
        "total_ms": _ms(ended - observation.started),
        "response_bytes": observation.response_bytes,
    }
    if observation.made_by:
        line["made_by"] = observation.made_by
    return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)


def _time(at: float) -> str:
    """RFC 3339, to the microsecond. A ``datetime`` for each line would be half of the line's work."""
    seconds, micros = divmod(int(at * 1_000_000), 1_000_000)
    return f"{_second(seconds)}.{micros:06}+00:00"


@lru_cache(maxsize=2)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _ms(seconds: float) -> float:
    """Milliseconds, to the microsecond; ``round`` would take longer than all the rest of the line."""
    return int(seconds * 1e6) / 1000


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
