"""One request for more images than a provider makes at once: several requests at the same time, and one answer.

Their bodies are passed on one after the other, in the order in which they begin: what the others send waits in their
connections, and nothing is held here. A request that fails is left out of the answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from time import perf_counter
from types import TracebackType
from typing import Self

from proxy.domain.answers.images.joined import JoinedImages
from proxy.domain.billing.settlement import Served
from proxy.domain.errors import ProxyError
from proxy.telemetry.observation import Observation
from proxy.upstream.exchange import Exchange
from proxy.upstream.failover import Failover
from proxy.upstream.watchdog import Watchdog

TURN_LIMIT_S = 86_400.0
Step = bytes | Callable[[], None]


@dataclass(frozen=True, slots=True)
class OneOfSeveral:
    """One of the requests, and who serves it."""

    upstream: Exchange | Failover
    served: Served


class SideBySide:
    """As an exchange has it: a context that gives an answer, and the pieces to feed it."""

    def __init__(
        self, requests: Sequence[OneOfSeveral], answer: JoinedImages, served: Served, observation: Observation
    ) -> None:
        """Send ``requests``, and join what comes in ``answer``.

        ``served`` gets who served one of them, ``observation`` the time of waiting for them, in seconds.
        """
        self._served = served
        self.is_whole = False
        self.failure: ProxyError | None = None
        self._requests = requests
        self._answer = answer
        self._observation = observation
        self._tasks: list[asyncio.Task[None]] = []
        self._turn = asyncio.Lock()
        self._steps: asyncio.Queue[Step] = asyncio.Queue(maxsize=1)
        self._current: Exchange | None = None
        self._left = len(requests)
        self._is_reading = False
        self.asked_before = 0
        """How many deployments of other models have been asked before."""

        self._reasons: list[str | None] = []
        self._has_begun = asyncio.Event()

    @property
    def watchdog(self) -> Watchdog:
        """That of the request whose body is passed on."""
        if self._current is None:
            raise RuntimeError("nothing has been read yet")
        return self._current.watchdog

    def end_when(self, is_moot: Callable[[], bool]) -> None:
        """Raise ClientGone as soon as nobody wants the answer any more."""
        for request in self._requests:
            request.upstream.end_when(is_moot)

    async def __aenter__(self) -> Self:
        """Send all of them."""
        self._tasks = [asyncio.create_task(self._run(request)) for request in self._requests]
        return self

    async def __aexit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        """End what is still under way."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._current = None

    async def why_elsewhere(self) -> str | None:
        """Wait until one of the requests is answered, or all have failed: why another model may then be asked."""
        began = perf_counter()
        try:
            await self._has_begun.wait()
        finally:
            self._observation.provider_s += perf_counter() - began
        all_failed = len(self._reasons) == len(self._requests)
        return self._reasons[0] if all_failed and None not in self._reasons else None

    async def answer(self) -> JoinedImages:
        """What reads all the bodies."""
        return self._answer

    async def read(self) -> bytes:
        """The next piece of the body that is passed on, nothing when the last one has ended.

        Raises UpstreamUncertain where an image was cut that had begun to flow.
        """
        began = perf_counter()
        try:
            while True:
                if self._is_reading:
                    self._steps.task_done()
                self._is_reading = False
                if not self._left:
                    return b""
                step = await self._steps.get()
                self._is_reading = True
                if isinstance(step, bytes):
                    return step
                step()
        finally:
            self._observation.provider_s += perf_counter() - began

    async def _run(self, request: OneOfSeveral) -> None:
        has_turn = False
        try:
            async with request.upstream as exchange:
                comes_as_events = await exchange.begin()
                self._has_begun.set()
                exchange.watchdog.phase(TURN_LIMIT_S, lambda: None, counted=False)
                began = perf_counter()
                has_turn = await self._turn.acquire()
                exchange.watchdog.grant(perf_counter() - began)
                self._current = exchange
                await self._pass_on(exchange, comes_as_events=comes_as_events)
        except Exception as error:
            # One request's failure, whatever it is, is not that of the others.
            self._reasons.append(request.upstream.elsewhere if isinstance(request.upstream, Failover) else None)
            if len(self._reasons) == len(self._requests):
                self._has_begun.set()
            await self._steps.put(partial(self._answer.fail_part if has_turn else self._answer.note_failure, error))
        finally:
            self._note(request.served)
            if has_turn:
                self._turn.release()
        await self._steps.put(self._end)

    async def _pass_on(self, exchange: Exchange, *, comes_as_events: bool) -> None:
        reading = exchange.client.dialect.reading
        await self._steps.put(partial(self._answer.begin_part, reading, comes_as_events=comes_as_events))
        while piece := await exchange.read():
            await self._steps.put(piece)
        exchange.is_whole = True
        await self._steps.put(self._answer.end_part)
        # Until all of it has been taken, its watchdog looks after the client as well.
        await self._steps.join()

    def _note(self, by: Served) -> None:
        """One that answered says who served all, where there is one."""
        served = self._served
        if not served.provider or served.status != HTTPStatus.OK:
            served.provider, served.status = by.provider, by.status
        served.attempts = max(served.attempts, self.asked_before + by.attempts)

    def _end(self) -> None:
        self._left -= 1
