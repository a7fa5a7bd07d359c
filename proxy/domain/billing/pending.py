"""A task that a provider has accepted and works on, so that its images can be charged whoever is there when it ends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class PendingTask:
    """Where ``provider`` says how a task is doing. No address holds a secret: the provider's key goes in a header.

    ``result_url`` is where its result is, if not in what ``poll_url`` says; ``cancel_url`` where it can be cancelled.
    """

    provider: str
    poll_url: str
    result_url: str = ""
    cancel_url: str = ""


class TaskKeeper(Protocol):
    """Whoever settles the request that a task belongs to."""

    async def keep(self, task: PendingTask) -> None:
        """Write it down, so that another process can settle the request. Raises nothing."""
        ...
