"""One connection to Redis for scripts alone, on which any number of calls are under way at once.

The client library gives each pipeline a connection, a task and a timer, and each reply five nested coroutines; on the
hot path that was as much work as all the rest of metering. Here calls are written when the turn of the event loop ends,
and each reply goes to its caller as it is parsed. hiredis speaks the protocol (RESP2).
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import hiredis
from redis.asyncio.connection import SSLConnection, parse_url
from redis.exceptions import RedisError

from proxy.metering.redis.scripts import Script
from proxy.metering.redis.sentinel import SCHEMES, parse_sentinel_url, sentinels_of

Argument = str | bytes | int

DEFAULT_PORT = 6379
WORDS_BEFORE_KEYS = 3
"""Of a call: EVALSHA, the script's SHA-1 and the number of keys."""


class ConnectError(OSError):
    """No connection to Redis could be had; the message says why."""


@dataclass(slots=True, eq=False)
class Route:
    """Where in a Cluster a call goes: ``began`` is when it was first sent on its way, in the event loop's time.

    ``asks`` where a node that is being given the slot has to take it. ``redirects`` counts the nodes that have sent it
    on, and ``place`` is the one that it was sent to last. It is ``in_doubt`` once a connection was lost on which it may
    have been done.
    """

    slot: int
    began: float
    asks: bool = False
    redirects: int = 0
    place: tuple[str, int] = ("", 0)
    in_doubt: bool = False


@dataclass(slots=True, eq=False)
class Call:
    """One run of a script. ``id`` is what the script takes first and gives back; ``sent`` is the event loop's time.

    ``command`` is what ``pack_call`` has made.
    """

    script: Script
    id: bytes
    command: bytes
    reply: asyncio.Future[list[Any]]
    tries: int = 0
    sent: float = 0.0
    with_text: bool = False
    route: Route | None = None

    def packed(self) -> bytes:
        """The command as it is sent: by the script's name, or with its text where Redis does not know it."""
        if self.with_text:
            _evalsha, _sha1, *words = unpack(self.command)
            return pack("EVAL", self.script.text, *words)
        return self.command


@dataclass(slots=True, eq=False)
class Wait:
    """``WAIT`` for what went before it on the same connection; its reply is the number of replicas that have it.

    ``held`` are replies that nobody gets before that number is known. What another connection wrote is in it only where
    ``mark`` was written on this one, and the number ``counts`` where that has gone well.
    """

    replicas: int
    timeout_ms: int
    held: list[tuple[Call, list[Any]]] = field(default_factory=list)
    mark: Call | None = None
    counts: bool = True
    sent: float = 0.0

    def packed(self) -> bytes:
        """The command as it is sent (https://redis.io/docs/latest/commands/wait/)."""
        return pack("WAIT", self.replicas, self.timeout_ms)


@dataclass(slots=True, eq=False)
class Asking:
    """Lets a node of a Cluster take the next command on the connection, though the slot is not its own yet."""

    sent: float = 0.0

    def packed(self) -> bytes:
        """The command as it is sent (https://redis.io/docs/latest/commands/asking/)."""
        return pack("ASKING")


@dataclass(slots=True, eq=False)
class Question:
    """A command that is no script's; its reply may be an error."""

    words: tuple[Argument, ...]
    reply: asyncio.Future[Any]
    sent: float = 0.0

    def packed(self) -> bytes:
        """The command as it is sent."""
        return pack(*self.words)


Sent = Call | Wait | Asking | Question


class ScriptConnection(asyncio.Protocol):
    """A connection that is up. ``on_reply`` gets each call with its reply, ``on_lost`` those that got none."""

    def __init__(
        self, on_reply: Callable[[Any, Any], None], on_lost: Callable[[ScriptConnection, list[Sent]], None]
    ) -> None:
        """Start before the connection is made; ``open_connection`` makes one."""
        self._on_reply = on_reply
        self._on_lost = on_lost
        self._reader = hiredis.Reader()
        self._under_way: deque[Sent] = deque()
        self._greeting: asyncio.Future[None] | None = None
        self._greetings = 0
        self._transport: asyncio.Transport | None = None

    @property
    def oldest_sent(self) -> float | None:
        """When the call was sent that has waited longest for its reply, None where none waits."""
        return self._under_way[0].sent if self._under_way else None

    def send(self, calls: Sequence[Sent], now: float) -> None:
        """Write all of ``calls`` at once; their replies come in the same order."""
        for call in calls:
            call.sent = now
        self._under_way.extend(calls)
        if self._transport is not None:
            self._transport.write(b"".join([call.packed() for call in calls]))

    async def greet(self, commands: Sequence[bytes]) -> None:
        """Send what a new connection begins with. Raises ConnectError where Redis refuses any of it.

        The last one only names the connection, for which a user without the right to ``CLIENT`` is no worse.
        """
        if commands and self._transport is not None:
            self._greeting, self._greetings = asyncio.get_running_loop().create_future(), len(commands)
            self._transport.write(b"".join(commands))
            await self._greeting

    def abort(self) -> None:
        """Close at once: what may still come on it must reach nobody."""
        if self._transport is not None:
            self._transport.abort()

    # --- asyncio.Protocol ---------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember the transport."""
        # uvloop's transports are no instances of the class whose methods they have.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Hand each reply to its caller."""
        self._reader.feed(data)
        try:
            while (reply := self._reader.gets()) is not False:
                self._take(reply)
        except hiredis.ProtocolError:
            self.abort()

    def connection_lost(self, error: Exception | None) -> None:
        """Give the calls back that have no reply."""
        self._transport = None
        if self._greeting is not None and not self._greeting.done():
            self._greeting.set_exception(ConnectError(f"the connection was closed: {error}"))
        lost, self._under_way = list(self._under_way), deque()
        self._on_lost(self, lost)

    def _take(self, reply: Any) -> None:
        if self._greeting is not None and not self._greeting.done():
            self._greetings -= 1
            is_last = self._greetings == 0
            if isinstance(reply, hiredis.ReplyError) and not (is_last and str(reply).startswith("NOPERM")):
                self._greeting.set_exception(ConnectError(str(reply)))
            elif is_last:
                self._greeting.set_result(None)
        elif self._under_way:
            self._on_reply(self._under_way.popleft(), reply)
        else:
            self.abort()


async def open_connection(
    url: str,
    on_reply: Callable[[Any, Any], None],
    on_lost: Callable[[ScriptConnection, list[Sent]], None],
    *,
    timeout_s: float,
) -> ScriptConnection:
    """A connection to the store at ``url``, its primary of now. Raises ConnectError, also after ``timeout_s``."""
    loop = asyncio.get_running_loop()
    connection = ScriptConnection(on_reply, on_lost)
    try:
        async with asyncio.timeout(timeout_s):
            options = await _find(url, timeout_s)
            if "path" in options:
                await loop.create_unix_connection(lambda: connection, options["path"])
            else:
                await loop.create_connection(
                    lambda: connection,
                    options.get("host", "localhost"),
                    options.get("port", DEFAULT_PORT),
                    ssl=_ssl_context(options) if url.startswith("rediss") else None,
                )
            await connection.greet(_greeting(options))
    except TimeoutError:
        connection.abort()
        raise ConnectError(f"no connection within {timeout_s:g} seconds") from None
    except OSError as error:
        connection.abort()
        raise error if isinstance(error, ConnectError) else ConnectError(str(error)) from error
    except BaseException:
        connection.abort()
        raise
    return connection


async def ask_once(url: str, *commands: tuple[Argument, ...], timeout_s: float) -> list[Any]:
    """The replies to commands on a connection of their own. Raises ConnectError, also for one that is refused."""

    def take(question: Question, reply: Any) -> None:
        if not question.reply.done():
            question.reply.set_result(reply)

    def lose(_connection: ScriptConnection, _lost: list[Sent]) -> None:
        for question in questions:
            if not question.reply.done():
                question.reply.set_exception(ConnectError("the connection was closed"))
                question.reply.exception()

    loop = asyncio.get_running_loop()
    questions = [Question(words, loop.create_future()) for words in commands]
    connection = await open_connection(url, take, lose, timeout_s=timeout_s)
    try:
        async with asyncio.timeout(timeout_s):
            connection.send(questions, loop.time())
            replies = [await each.reply for each in questions]
    except TimeoutError:
        raise ConnectError(f"no answer within {timeout_s:g} seconds") from None
    finally:
        connection.abort()
    for reply in replies:
        if isinstance(reply, hiredis.ReplyError):
            raise ConnectError(str(reply))
    return replies


async def _find(url: str, timeout_s: float) -> dict[str, Any]:
    if not url.startswith(SCHEMES):
        return dict[str, Any](parse_url(url))
    address = parse_sentinel_url(url)
    # Time for another one, where the first does not answer.
    async with sentinels_of(address, timeout_s / 3) as sentinels:
        try:
            host, port = await sentinels.discover_master(address.service)
        except RedisError as error:
            raise ConnectError(f"no sentinel knows a primary of {address.service!r}: {error}") from error
    return {"host": host, "port": port, **address.store_options}


def _greeting(options: dict[str, Any]) -> list[bytes]:
    commands: list[bytes] = []
    if options.get("password") is not None:
        user = (options["username"],) if options.get("username") else ()
        commands.append(pack("AUTH", *user, options["password"]))
    if options.get("db"):
        commands.append(pack("SELECT", options["db"]))
    return [*commands, pack("CLIENT", "SETNAME", "lightmeter")]


def _ssl_context(options: dict[str, Any]) -> ssl.SSLContext:
    """As the client library makes it of the same address, which the admin API's reads go by. Raises ConnectError."""
    given = {name: value for name, value in options.items() if name.startswith("ssl_")}
    try:
        return SSLConnection(**given).ssl_context.get()
    except (OSError, RedisError) as error:
        raise ConnectError(f"the TLS settings of the address cannot be used: {error}") from error


def unpack(command: bytes) -> list[bytes]:
    """The words of a command that ``pack`` has made."""
    reader = hiredis.Reader()
    reader.feed(command)
    return cast("list[bytes]", reader.gets())


def pack_call(script: Script, keys: Sequence[str], arguments: Sequence[Argument]) -> bytes:
    """A call of ``script`` in RESP."""
    return pack("EVALSHA", script.sha1, len(keys), *keys, *arguments)


def begin_packed(count: int, command: bytes) -> bytes:
    """The beginning of a command of ``count`` words, of which the first are those of ``command``."""
    return b"*%d\r\n%b" % (count, packed_words(command))


def packed_words(command: bytes) -> bytes:
    """The words of a packed command, without their number."""
    return command[command.index(b"\n") + 1 :]


def pack(*words: Argument) -> bytes:
    """A command in RESP."""
    # The stub allows for one word only.
    packed: bytes = hiredis.pack_command(words)  # type: ignore[arg-type]
    return packed
