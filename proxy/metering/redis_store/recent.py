"""Settlements that the store has just stored, posted once more on each new connection to it.

A store that was killed may have lost the last second or two of what it had acknowledged (``appendfsync everysec``), and
one that took over by fail-over what had not been replicated. For as long as this process remembers, nothing is lost.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict, deque
from functools import partial
from typing import Any

from proxy.metering.redis.runner import ScriptRunner
from proxy.metering.redis.scripts import Script
from proxy.telemetry.metrics import Metrics

logger = logging.getLogger(__name__)

MEMORY_S = 3.0
"""Redis flushes its append-only file every second, and may be a second late with it."""

LIMIT = 20_000
"""Of one node."""

KEPT_S = 600.0
"""How long those of a node are kept that takes no more of them, be it for another one to take over."""


class RecentSettlements:
    """The settlements of the last seconds, with the ids of their ledger entries.

    They are kept as the commands that were sent: a kilobyte each, which the garbage collector need not look at. Ten
    thousand objects of the domain, as many as there are at full load, took five times as much.
    """

    def __init__(self, runner: ScriptRunner, settle: Script, metrics: Metrics) -> None:
        """Run ``settle`` again on ``runner``; needs a running event loop."""
        self._runner = runner
        self._settle = settle
        self._metrics = metrics
        self._time = asyncio.get_running_loop().time
        self._taken: dict[object, deque[tuple[float, bytes, bytes]]] = defaultdict(partial(deque, maxlen=LIMIT))
        """By the node that has them: while one is away and others go on, nothing of its last seconds is forgotten."""

    def add(self, command: bytes, entry_id: bytes) -> None:
        """The store says that ``command`` has made the ledger entry ``entry_id``."""
        now, taken = self._time(), self._taken[self._runner.place_of(command)]
        taken.append((now, command, entry_id))
        while taken[0][0] < now - MEMORY_S:
            taken.popleft()

    def post_again(self) -> None:
        """Settle them all once more, before anybody's admission counts on what the store has lost."""
        now = self._time()
        for place, taken in list(self._taken.items()):
            while taken and taken[0][0] < now - KEPT_S:
                taken.popleft()
            if not taken:
                del self._taken[place]
            for _, command, entry_id in taken:
                call = self._runner.submit_again(self._settle, command)
                call.reply.add_done_callback(partial(self._compare, call.id, entry_id))

    def _compare(self, reservation_id: bytes, before: bytes, reply: asyncio.Future[list[Any]]) -> None:
        if reply.cancelled() or reply.exception() is not None:
            return
        verdict, *after = reply.result()
        # One that is so old that the store has forgotten it on purpose is not looked for.
        if verdict != b"old" and after[0] != before:
            logger.error("the store had lost the settlement of %s; it has been posted again", reservation_id.decode())
            self._metrics.reposted(1)
