"""A worker as it sees itself: a gateway whose clients come through its supervisor's sockets.

It ends when its supervisor says so, when it is asked to by a signal, and when its supervisor is gone. In the last two
cases nothing that it has begun is broken off.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Callable, Mapping
from typing import Any

from proxy.app import Gateway
from proxy.machine.limits import Board, SharedLimits
from proxy.machine.place import Place
from proxy.machine.segment import Segment
from proxy.metering.journal.journal import JournalError
from proxy.settings.mistakes import ConfigurationError
from proxy.settings.settings import parse_settings
from proxy.supervisor.channel import Channel
from proxy.supervisor.process import BAD_CONFIGURATION
from proxy.telemetry.logs import set_up_logs

logger = logging.getLogger(__name__)

READY = "ready"


class Worker:
    """One worker, from its first word to its end."""

    def __init__(self, channel: Channel, gateway: Gateway) -> None:
        """The gateway serves by now."""
        self._channel = channel
        self._gateway = gateway
        self._draining: asyncio.Task[None] | None = None
        self._may_end = asyncio.Event()

    async def run(self) -> None:
        """Do as the supervisor says, until this process should end."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._leave)
        listening = asyncio.create_task(self._listen())
        await self._may_end.wait()
        if self._draining is not None:
            await self._draining
        listening.cancel()

    async def _listen(self) -> None:
        while message := await self._channel.receive():
            try:
                await self._obey(message)
            except Exception:
                logger.exception("a word of the supervisor was not understood")
        if not self._may_end.is_set():
            logger.error("the supervisor is gone: this worker finishes what it has begun, and ends")
            self._leave()

    async def _obey(self, message: Mapping[str, Any]) -> None:
        if message["do"] == "ask":
            self._gateway.metrics.refresh()
            self._gateway.metrics.open_requests(self._gateway.lifecycle.in_flight)
            status = (await self._gateway.readiness.why_not() if message["status"] else "") or READY
            self._channel.send(answer=message["id"], status=status)
        elif message["do"] == "reload":
            self._reload(message["text"], message["source"])
        elif message["do"] == "leave":
            self._leave(to_workers=message["to_workers"])
        elif message["do"] == "stop":
            self._stop()
        elif message["do"] == "end":
            self._may_end.set()

    def _reload(self, text: str, source: str) -> None:
        try:
            self._gateway.reload(parse_settings(text, source))
        except ConfigurationError as error:
            logger.error("the configuration was not taken, and the one before stays in force: %s", error)

    def _leave(self, *, to_workers: bool = True) -> None:
        """Others take what comes; this one ends when it has served what it has."""
        if self._draining is None:
            self._draining = asyncio.create_task(self._drain(leaving=True, to_workers=to_workers))
        self._may_end.set()

    def _stop(self) -> None:
        """Nobody takes what comes; what does is refused until all workers have finished what they have."""
        if self._draining is None:
            self._draining = asyncio.create_task(self._drain(leaving=False))

    async def _drain(self, *, leaving: bool, to_workers: bool = False) -> None:
        await self._gateway.drain(leaving=leaving, to_workers=to_workers)
        self._channel.send(tell="drained")


async def serve_as_worker(handed: Mapping[str, Any], has_started: Callable[[], None]) -> int:
    """Be a worker with what was ``handed`` over; the exit status. It calls ``has_started`` before the first request."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGHUP):
        # Those are for the supervisor.
        loop.add_signal_handler(number, lambda: None)
    channel = await Channel.open(socket.socket(fileno=handed["control"]))
    start = await channel.receive()
    if start is None:
        return BAD_CONFIGURATION
    place = Place(
        start["store_url"],
        [socket.socket(fileno=door) for door in handed["doors"]],
        Segment(handed["segment"]),
        SharedLimits(Board(Segment(handed["board"])), start["column"]),
        start["workers"],
        start["index"],
    )
    try:
        settings = parse_settings(start["text"], start["source"])
        set_up_logs(settings.logs.level)
        gateway = Gateway(settings, os.environ, place=place)
        await gateway.start()
        if start["now"] != start["text"]:
            gateway.reload(parse_settings(start["now"], start["source"]))
    except (ConfigurationError, JournalError) as error:
        channel.send(tell="failed", why=str(error))
        await channel.flush()
        return BAD_CONFIGURATION
    try:
        has_started()
        channel.send(tell=READY)
        await Worker(channel, gateway).run()
    finally:
        await gateway.close()
        channel.close()
    return 0
