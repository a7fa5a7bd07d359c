"""What the gateway asks of the dialect of a provider that accepts a task, and has to be asked how it is doing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum, auto
from typing import Any, Protocol

from proxy.domain.errors import ProxyError
from proxy.upstream.dialects.protocol import Dialect


@dataclass(frozen=True, slots=True)
class Ticket:
    """The answer to a task that was accepted; the addresses are the provider's own, and not checked yet.

    ``result_url`` is empty where the result stands in what ``poll_url`` answers, ``cancel_url`` where nothing can be
    cancelled. ``cost_usd`` is what the provider takes for it, where it says so.
    """

    poll_url: str
    result_url: str = ""
    cancel_url: str = ""
    cost_usd: Decimal | None = None


class TaskState(Enum):
    """How a task is doing."""

    PENDING = auto()
    DONE = auto()
    FAILED = auto()
    UNKNOWN = auto()
    """The provider does not know it, or not any more."""


@dataclass(frozen=True, slots=True)
class TaskStatus:
    """What a provider says of a task: ``images`` are the addresses of what is done, ``error`` why it has failed."""

    state: TaskState
    images: tuple[str, ...] = ()
    error: ProxyError | None = None


PENDING = TaskStatus(TaskState.PENDING)
UNKNOWN = TaskStatus(TaskState.UNKNOWN)


class PolledDialect(Dialect, Protocol):
    """A dialect whose answer to a request is a ticket."""

    @property
    def poll_hosts(self) -> tuple[str, ...]:
        """The hosts that are asked about tasks, with the provider's key, beside that of its base URL."""
        ...

    @property
    def result_hosts(self) -> tuple[str, ...]:
        """The hosts that images are fetched from."""
        ...

    @property
    def cancel_method(self) -> str:
        """The HTTP method of a ticket's ``cancel_url``."""
        ...

    def read_ticket(self, answer: Mapping[str, Any]) -> Ticket | None:
        """The ticket in the answer of a 2xx; None where there is none in it."""
        ...

    def read_status(self, answer: Mapping[str, Any]) -> TaskStatus:
        """What ``poll_url`` answers."""
        ...

    def read_result(self, answer: Mapping[str, Any]) -> tuple[str, ...]:
        """The addresses of the images in what ``result_url`` answers."""
        ...
