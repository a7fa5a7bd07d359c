"""Addresses of hosts, looked up once for all who ask at the same time, and remembered for a while."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass

from aiohappyeyeballs import AddrInfoType

TTL_S = 30.0
STALE_AFTER_S = 1.8
"""How long a lookup is waited for where the addresses of before are known (RFC 8767 section 5)."""

HOSTS_MOST = 1_000
"""Hosts that are remembered; the one that was looked up first is forgotten first."""


@dataclass(slots=True)
class _Known:
    addresses: list[AddrInfoType]
    until_s: float
    turn: int = -1


class Resolver:
    """Of one pool of connections."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Nothing is known yet."""
        self._loop = loop
        self._known: dict[tuple[str, int], _Known] = {}
        self._lookups: dict[tuple[str, int], asyncio.Task[list[AddrInfoType]]] = {}

    async def resolve(self, host: str, port: int) -> list[AddrInfoType]:
        """The addresses of ``host``, another one first each time; those of before where no new ones can be had.

        Raises OSError.
        """
        key = (host, port)
        known = self._known.get(key)
        if known is None or known.until_s < self._loop.time():
            lookup = self._lookups.get(key)
            if lookup is None:
                lookup = self._lookups[key] = self._loop.create_task(self._look_up(host, port))
                lookup.add_done_callback(lambda done: self._note(key, done))
            # Others may wait for it as well: who leaves does not take it along.
            await asyncio.wait([lookup], timeout=None if known is None else STALE_AFTER_S)
            has_ended = lookup.done() and not lookup.cancelled()
            error = lookup.exception() if has_ended else None
            if has_ended and error is None and lookup.result():
                # Another request may have found the addresses of before to fail, and had these forgotten meanwhile.
                known = self._known.get(key) or _Known(lookup.result(), self._loop.time())
            elif known is None:
                raise OSError(getattr(error, "errno", None) or 0, f"{host} has no address: {_words(error)}")
            else:
                known.until_s = self._loop.time() + TTL_S
        known.turn = (known.turn + 1) % len(known.addresses)
        return known.addresses[known.turn :] + known.addresses[: known.turn]

    def forget(self, host: str, port: int) -> None:
        """None of its addresses answers: look them up again."""
        self._known.pop((host, port), None)

    def close(self) -> None:
        """End what is still looked up."""
        for lookup in list(self._lookups.values()):
            lookup.cancel()

    async def _look_up(self, host: str, port: int) -> list[AddrInfoType]:
        try:
            # What is an address needs no thread.
            flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
            return list(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags))
        except socket.gaierror:
            return list(await self._loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG))

    def _note(self, key: tuple[str, int], lookup: asyncio.Task[list[AddrInfoType]]) -> None:
        self._lookups.pop(key, None)
        if lookup.cancelled() or lookup.exception() is not None or not lookup.result():
            return
        self._known.pop(key, None)
        while len(self._known) >= HOSTS_MOST:
            del self._known[next(iter(self._known))]
        self._known[key] = _Known(lookup.result(), self._loop.time() + TTL_S)


def _words(error: BaseException | None) -> str:
    return (getattr(error, "strerror", None) or str(error)) if error is not None else "none was found"
