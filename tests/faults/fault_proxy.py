"""A TCP proxy that does to connections what networks do: delay, stall, refuse, reset, half-close, and lose a reply.

It runs in threads, so that a test that is not asynchronous can turn its switches at any moment. The moment can be
chosen by what is sent, too: ``before`` a request is passed on, or ``after`` its reply has come but nobody has seen it.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

PIECE = 65_536
RESET_WHEN_CLOSED = struct.pack("ii", 1, 0)


@dataclass(eq=False)
class _Link:
    """One connection through the proxy."""

    client: socket.socket
    server: socket.socket
    at_reply: list[Callable[[], object]] = field(default_factory=list)
    loses_reply: bool = False

    def reset(self) -> None:
        """Close both ends at once, as a crash would."""
        for end in (self.client, self.server):
            with contextlib.suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_WHEN_CLOSED)
            with contextlib.suppress(OSError):
                # Whoever is in the middle of reading from it wakes up.
                end.shutdown(socket.SHUT_RD)
            end.close()


@dataclass(eq=False)
class _Rule:
    """Something to do, once, when a request that holds one of ``needles`` comes by."""

    needles: tuple[bytes, ...]
    before: Callable[[], object] | None = None
    after: Callable[[], object] | None = None
    lose_reply: bool = False
    seen: threading.Event = field(default_factory=threading.Event)


class FaultProxy:
    """Passes bytes on to ``host:port``, unless told otherwise."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._links: set[_Link] = set()
        self._rules: list[_Rule] = []
        self._lock = threading.Lock()
        self._flowing = threading.Event()
        self._flowing.set()
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=1_024)
        self.port = int(self._listening.getsockname()[1])
        self.delay_s = 0.0
        self.refuses = False

    # --- Switches -----------------------------------------------------------------------------------------------------

    def stall(self) -> None:
        """Pass nothing on until ``resume``."""
        self._flowing.clear()

    def resume(self) -> None:
        """Pass on what has come, and go on."""
        self._flowing.set()

    def go_away(self) -> None:
        """Reset every connection, and take no more."""
        self.refuses = True
        self.reset()

    def come_back(self) -> None:
        """Take connections again."""
        self.refuses = False
        self._flowing.set()
        self.delay_s = 0.0

    def reset(self) -> None:
        """Reset every connection."""
        with self._lock:
            links, self._links = self._links, set()
        for link in links:
            link.reset()

    def half_close(self) -> None:
        """Tell every client that the server has nothing more to say, and still take what it says."""
        with self._lock:
            links = list(self._links)
        for link in links:
            with contextlib.suppress(OSError):
                link.client.shutdown(socket.SHUT_WR)

    # --- Moments ------------------------------------------------------------------------------------------------------

    def before(self, needles: tuple[bytes, ...], action: Callable[[], object]) -> threading.Event:
        """Call ``action`` when such a request comes by, before it is passed on."""
        return self._add(_Rule(needles, before=action))

    def after(self, needles: tuple[bytes, ...], action: Callable[[], object]) -> threading.Event:
        """Call ``action`` when the reply to such a request comes back, before it is passed on."""
        return self._add(_Rule(needles, after=action))

    def lose_reply(self, needles: tuple[bytes, ...]) -> threading.Event:
        """Reset the connection in place of passing on the reply to such a request."""
        return self._add(_Rule(needles, lose_reply=True))

    def forget_rules(self) -> None:
        """None of what has not happened yet is to happen."""
        with self._lock:
            self._rules.clear()

    def _add(self, rule: _Rule) -> threading.Event:
        with self._lock:
            self._rules.append(rule)
        return rule.seen

    # --- Work ---------------------------------------------------------------------------------------------------------

    def serve(self) -> None:
        """Take connections until the proxy is closed."""
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=self._open, args=(client,), daemon=True).start()

    def close(self) -> None:
        """End it."""
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._flowing.set()
        self.reset()

    def _open(self, client: socket.socket) -> None:
        server = None
        if not self.refuses:
            with contextlib.suppress(OSError):
                server = socket.create_connection(self._target, timeout=5)
        if server is None:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_WHEN_CLOSED)
            client.close()
            return
        server.settimeout(None)
        for end in (client, server):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        link = _Link(client, server)
        with self._lock:
            self._links.add(link)
        downward = threading.Thread(target=self._pass, args=(link, server, client, self._at_reply), daemon=True)
        downward.start()
        self._pass(link, client, server, self._at_request)
        downward.join()
        with self._lock:
            self._links.discard(link)
        client.close()
        server.close()

    def _pass(
        self, link: _Link, source: socket.socket, target: socket.socket, look: Callable[[_Link, bytes], None]
    ) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(PIECE):
                look(link, piece)
                if self.delay_s:
                    time.sleep(self.delay_s)
                self._flowing.wait()
                target.sendall(piece)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    def _at_request(self, link: _Link, piece: bytes) -> None:
        with self._lock:
            rules = [rule for rule in self._rules if any(needle in piece for needle in rule.needles)]
            self._rules = [rule for rule in self._rules if rule not in rules]
        for rule in rules:
            link.loses_reply = link.loses_reply or rule.lose_reply
            if rule.after is not None:
                link.at_reply.append(rule.after)
            if rule.before is not None:
                rule.before()
            rule.seen.set()

    def _at_reply(self, link: _Link, _piece: bytes) -> None:
        actions, link.at_reply = link.at_reply, []
        for action in actions:
            action()
        if link.loses_reply:
            link.reset()


@contextmanager
def fault_proxy(host: str, port: int) -> Iterator[FaultProxy]:
    """A proxy on a port of its own."""
    proxy = FaultProxy(host, port)
    threading.Thread(target=proxy.serve, daemon=True).start()
    try:
        yield proxy
    finally:
        proxy.close()
