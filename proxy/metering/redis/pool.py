"""How Redis is reached: which addresses are understood, and the client library's settings that accounting needs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

from redis import DriverInfo
from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import SentinelConnectionPool
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from proxy.domain.errors import StoreBusy, StoreUnavailable
from proxy.metering.redis.cluster.address import SCHEMES as CLUSTER
from proxy.metering.redis.cluster.address import parse_cluster_url
from proxy.metering.redis.cluster.reads import ClusterReads
from proxy.metering.redis.sentinel import SCHEMES, parse_sentinel_url, sentinels_of

CONNECTIONS = 32
SPARE_CONNECTIONS = 4
"""For what does not go through ``ask``."""

FIELDS_A_COMMAND = 1_000
PAST_ASCII = "\x7f"
"""Behind every character of a name."""

WAIT_S = 10.0
"""For a connection, where others use all of them."""

READ_TIMEOUT_S = 10.0
"""Of one command of the admin API; a connection that took longer is closed, and its reply reaches nobody."""


StorePool = ConnectionPool | ClusterReads
StoreReads = Redis | ClusterReads
"""What reads of the store go through: a client of one server, or of all nodes of a Cluster."""


def reads_of(pool: StorePool) -> StoreReads:
    """What reads through ``pool``."""
    return pool if isinstance(pool, ClusterReads) else Redis(connection_pool=pool)


def open_pool(url: str, *, timeout_s: float) -> StorePool:
    """Pools of connections to the nodes of a Cluster, or one; nothing is sent yet. ``timeout_s`` is as below."""
    if not url.startswith(CLUSTER):
        return open_server_pool(url, timeout_s=timeout_s)
    make_pool = partial(open_server_pool, timeout_s=timeout_s)
    return ClusterReads(parse_cluster_url(url), make_pool, _send_to_node, timeout_s=timeout_s)


def open_server_pool(url: str, *, timeout_s: float) -> ConnectionPool:
    """A pool of connections to ``url``; nothing is sent yet. ``timeout_s`` holds for making a connection.

    The library's retries are off, for ours go by reservation id. RESP2 is spoken, for RESP3 turns maintenance
    notifications on, and with them the check off that finds left-over replies on a connection.
    """
    settings: dict[str, Any] = {
        "protocol": 2,
        "max_connections": CONNECTIONS + SPARE_CONNECTIONS,
        "retry": Retry(NoBackoff(), 0),
        "socket_connect_timeout": timeout_s,
        "socket_timeout": READ_TIMEOUT_S,
        # A name by SETNAME is refused to a user without CLIENT, and the connection with it; this one is only a wish.
        "driver_info": DriverInfo("lightmeter"),
    }
    if not url.startswith(SCHEMES):
        return ServerPool.from_url(url, **settings)
    address = parse_sentinel_url(url)
    # The sentinels' own time is part of that for making a connection.
    sentinels = sentinels_of(address, timeout_s / 2)
    # The library's types end here.
    return SentinelPool(  # type: ignore[no-untyped-call]
        address.service, sentinels, ssl=address.has_tls, **settings, **address.store_options
    )


class ServerPool(ConnectionPool):
    """The library's, which raises where a server that stands still takes no part in the end of TLS."""

    async def disconnect(self, inuse_connections: bool = True) -> None:
        """Close the connections, only those that nobody uses or all, within the time for making one."""
        with suppress(RedisTimeoutError):
            await super().disconnect(inuse_connections)


class SentinelPool(ServerPool, SentinelConnectionPool):
    """The library's, which leaves the connections to the sentinels open."""

    async def aclose(self) -> None:
        """Close every connection, to the store and to its sentinels."""
        try:
            await super().aclose()
        finally:
            await self.sentinel_manager.aclose()


_places: WeakKeyDictionary[ConnectionPool, asyncio.Semaphore] = WeakKeyDictionary()


@asynccontextmanager
async def _place(pool: ConnectionPool) -> AsyncIterator[None]:
    """A place among those who use ``pool`` at the same time. Raises StoreBusy where none is free in ``WAIT_S``."""
    places = _places.get(pool)
    if places is None:
        places = _places[pool] = asyncio.Semaphore(CONNECTIONS)
    try:
        async with asyncio.timeout(WAIT_S):
            await places.acquire()
    except TimeoutError:
        raise StoreBusy from None
    try:
        yield
    finally:
        places.release()


async def _send_to_node(redis: Redis, commands: Sequence[Sequence[str | int]]) -> list[Any]:
    """The replies of one node, errors among them. Raises what happens to the connection, and StoreBusy."""
    async with _place(redis.connection_pool):
        try:
            return await _send_all(redis, commands, raises=False)
        except RedisTimeoutError as error:
            raise StoreUnavailable from error
        except (RedisError, OSError, RuntimeError):
            await redis.connection_pool.disconnect(inuse_connections=False)
        return await _send_all(redis, commands, raises=False)


async def ask(redis: StoreReads, *words: str | int) -> Any:
    """The reply to a command that may be sent twice. Raises StoreUnavailable, or StoreBusy.

    A connection that broke while nobody used it is noticed by its next user only, so there is a second try on new ones.
    Who finds all connections in use waits for one: the library would say that the store is away.
    """
    if isinstance(redis, ClusterReads):
        return await redis.ask(*words)
    async with _place(redis.connection_pool):
        return await _ask(redis, words)


async def ask_all(redis: StoreReads, commands: Sequence[Sequence[str | int]]) -> list[Any]:
    """The replies to commands that may be sent twice, in one round trip. Raises StoreUnavailable, or StoreBusy."""
    if not commands:
        return []
    if isinstance(redis, ClusterReads):
        return await redis.ask_all(commands)
    async with _place(redis.connection_pool):
        try:
            return await _send_all(redis, commands)
        except (ResponseError, RedisTimeoutError) as error:
            raise StoreUnavailable from error
        except (RedisError, OSError, RuntimeError):
            await redis.connection_pool.disconnect(inuse_connections=False)
        try:
            return await _send_all(redis, commands)
        except (RedisError, OSError, RuntimeError) as error:
            raise StoreUnavailable from error


async def earliest_time_ms(redis: StoreReads) -> int:
    """Now by the clock of the store, in milliseconds; of those of several nodes, the one that is behind the others.

    Raises StoreUnavailable, or StoreBusy.
    """
    if isinstance(redis, ClusterReads):
        times = [*(await redis.ask_primaries("TIME")).values()]
    else:
        times = [await ask(redis, "TIME")]
    return min(int(seconds) * 1_000 + int(micros) // 1_000 for seconds, micros in times)


async def _send_all(redis: Redis, commands: Sequence[Sequence[str | int]], *, raises: bool = True) -> list[Any]:
    async with redis.pipeline(transaction=False) as pipe:
        for words in commands:
            pipe.execute_command(*words)
        return await pipe.execute(raise_on_error=raises)


def place_of(redis: StoreReads, name: str) -> object:
    """What tells keys apart that are at different nodes; the same for all keys of one server."""
    return redis.place_of(name) if isinstance(redis, ClusterReads) else None


async def read_hash(redis: StoreReads, name: str) -> dict[bytes, bytes]:
    """All fields of a hash that may be large, a part of them a command. Raises StoreUnavailable, or StoreBusy.

    What is written meanwhile may be in it or not.
    """
    fields: dict[bytes, bytes] = {}
    cursor = 0
    place = place_of(redis, name)
    while True:
        if place != (place := place_of(redis, name)):
            # A cursor means nothing to another node.
            fields.clear()
            cursor = 0
        after, found = await ask(redis, "HSCAN", name, cursor, "COUNT", FIELDS_A_COMMAND)
        fields.update(found)
        cursor = int(after)
        if cursor == 0:
            return fields


async def _ask(redis: Redis, words: tuple[str | int, ...]) -> Any:
    command: Any = redis.execute_command
    try:
        return await command(*words)
    except (ResponseError, RedisTimeoutError) as error:
        raise StoreUnavailable from error
    # uvloop raises RuntimeError for a transport that is closed, and the client library lets it through.
    except (RedisError, OSError, RuntimeError):
        await redis.connection_pool.disconnect(inuse_connections=False)
    try:
        return await command(*words)
    except (RedisError, OSError, RuntimeError) as error:
        raise StoreUnavailable from error


async def names_after(
    redis: StoreReads,
    index: str,
    after: str | None,
    *,
    inclusive: bool = False,
    count: int | None = None,
    prefix: str = "",
) -> list[str]:
    """Names of a sorted set whose scores are all the same, in their order, from ``after`` on.

    With a ``prefix``, which is ASCII, only those that begin with it.
    """
    words = names_command(index, after, inclusive=inclusive, count=count, prefix=prefix)
    return [name.decode() for name in await ask(redis, *words)]


def names_command(
    index: str, after: str | None, *, inclusive: bool = False, count: int | None = None, prefix: str = ""
) -> tuple[str | int, ...]:
    """The command whose reply ``names_after`` gives."""
    start = f"{'[' if inclusive else '('}{after}" if after and after >= prefix else f"[{prefix}" if prefix else "-"
    end = f"({prefix}{PAST_ASCII}" if prefix else "+"
    paging = () if count is None else ("LIMIT", 0, count)
    return ("ZRANGEBYLEX", index, start, end, *paging)
