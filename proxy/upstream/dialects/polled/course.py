"""The course of one accepted task: where to look next and when, by what the looks before have shown. Pure.

A look that fails says nothing about the task, and is repeated. Only the provider's own word ends it.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

import orjson

from proxy.domain.billing.pending import PendingTask
from proxy.domain.errors import TaskUnknown, UpstreamUncertain
from proxy.upstream.dialects.polled.protocol import PolledDialect, TaskState

BACK_OFF = 1.5
WAIT_LIMIT_S = 60.0
"""The longest wait that a provider may ask for between two looks."""

UNKNOWN_LIMIT = 3
"""So many looks in a row have to miss a task: one that was just accepted is not known everywhere at once."""

RESULT_FAILURES_LIMIT = 3
"""So many answers of 500 or more in a result's place are the task's own failure."""

_PASSING = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS})
_GONE = frozenset({HTTPStatus.NOT_FOUND, HTTPStatus.GONE})


class Course:
    """Where to look next: at ``url``, after ``wait_s`` seconds."""

    def __init__(self, dialect: PolledDialect, task: PendingTask, *, first_s: float, most_s: float) -> None:
        """The first look comes after ``first_s`` seconds; the pauses grow to ``most_s``."""
        self._dialect = dialect
        self._task = task
        self._pause_s = first_s
        self._most_s = most_s
        self._unknown = self._failures = 0
        self._is_done = False
        self.url = task.poll_url
        self.wait_s = first_s

    def missed(self, retry_after_s: int | None = None) -> None:
        """A look showed nothing."""
        self._pause_s = min(self._most_s, self._pause_s * BACK_OFF)
        self.wait_s = min(WAIT_LIMIT_S, max(self._pause_s, retry_after_s or 0))

    def saw(
        self, status: int, headers: Mapping[str, str], body: bytes, retry_after_s: int | None
    ) -> tuple[str, ...] | None:
        """Take an answer; the addresses of the images where the task is done, None where it has to be looked at again.

        Raises TaskUnknown, or the error that the task has ended by.
        """
        if status in _GONE:
            self._not_known(retry_after_s)
            return None
        if status in _PASSING or (status >= HTTPStatus.INTERNAL_SERVER_ERROR and not self._has_failed()):
            self.missed(retry_after_s)
            return None
        if not HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
            if status < HTTPStatus.BAD_REQUEST:
                raise UpstreamUncertain("The provider sends this gateway elsewhere to look for the task.")
            error = self._dialect.read_refusal(status, headers, body)
            if self._is_done:
                # It stands where the result would, so it is how the task has ended.
                error.reported_status = status
            raise error
        try:
            answer = orjson.loads(body)
        except orjson.JSONDecodeError:
            answer = None
        if not isinstance(answer, dict):
            self.missed(retry_after_s)
            return None
        if self._is_done:
            return self._dialect.read_result(answer)
        return self._read_status(answer, retry_after_s)

    def _read_status(self, answer: Mapping[str, object], retry_after_s: int | None) -> tuple[str, ...] | None:
        said = self._dialect.read_status(answer)
        if said.state is TaskState.UNKNOWN:
            self._not_known(retry_after_s)
            return None
        self._unknown = 0
        if said.error is not None:
            raise said.error
        if said.state is not TaskState.DONE:
            self.missed(retry_after_s)
            return None
        if not self._task.result_url:
            return said.images
        self._is_done, self.url, self.wait_s = True, self._task.result_url, 0.0
        return None

    def _not_known(self, retry_after_s: int | None) -> None:
        self._unknown += 1
        if self._unknown >= UNKNOWN_LIMIT:
            raise TaskUnknown
        self.missed(retry_after_s)

    def _has_failed(self) -> bool:
        if not self._is_done:
            return False
        self._failures += 1
        return self._failures >= RESULT_FAILURES_LIMIT
