"""Logs as JSON, one object a line, on standard error.

A request's line never holds a prompt, a key's text or an image. Lines of requests are gathered and written a few
times a second: one by one, they would be a good part of the gateway's work on a small answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from datetime import UTC, datetime
from time import time
from typing import BinaryIO

import orjson

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


def set_up_logs(level: str) -> None:
    """Send every log record to standard error as JSON."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # It repeats every failed task that we report ourselves, with the request's text in it.
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)
    # It warns of each form that is not well-formed, which is its client's to know.
    logging.getLogger("python_multipart").setLevel(logging.ERROR)


class RequestLog:
    """One line for each request."""

    def __init__(self, stream: BinaryIO | None = None) -> None:
        """Write to ``stream``, or nowhere."""
        self._stream = stream
        self._ended: list[tuple[Observation, float, float]] = []
        self._timer: asyncio.TimerHandle | None = None

    def write(self, observation: Observation, ended: float) -> None:
        """Note a request that has been answered."""
        if self._stream is None:
            return
        self._ended.append((observation, ended, time()))
        if len(self._ended) >= REQUESTS_A_BATCH:
            self.flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(FLUSH_AFTER_S, self.flush)

    def flush(self) -> None:
        """Write what has been gathered."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._ended and self._stream is not None:
            requests, self._ended = self._ended, []
            # A log that cannot be written must not keep an answer from its client.
            with contextlib.suppress(OSError, ValueError):
                self._stream.write(b"".join(_line(*request) for request in requests))
                self._stream.flush()


def _line(observation: Observation, ended: float, at: float) -> bytes:
    line = {
        "time": datetime.fromtimestamp(at, UTC),
        "level": "info",
        "message": "request",
        "request_id": observation.request_id,
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
        "attempts": int(bool(observation.provider)) if observation.attempts is None else observation.attempts,
        "provider_ms": _ms(observation.provider_s),
        "own_ms": _ms(observation.own_s(ended)),
        "total_ms": _ms(ended - observation.started),
        "response_bytes": observation.response_bytes,
    }
    return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)


def _ms(seconds: float) -> float:
    """Milliseconds, to the microsecond; ``round`` would take longer than all the rest of the line."""
    return int(seconds * 1e6) / 1000


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
