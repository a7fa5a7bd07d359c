"""What may happen once, as all gateways on one store see it: a sign-in link is used, a session is ended."""

from __future__ import annotations

from redis.asyncio import ConnectionPool, Redis

from proxy.metering.redis.pool import ask
from proxy.metering.redis_store.keys import once


class Once:
    """Names that were taken, each remembered for as long as it could be used. Raises StoreUnavailable."""

    def __init__(self, pool: ConnectionPool) -> None:
        """Remember in Redis, through ``pool``."""
        self._redis = Redis(connection_pool=pool)

    async def take(self, name: str, *, for_s: int) -> bool:
        """Whether ``name`` is taken by this call, and was not before; it is remembered ``for_s`` seconds."""
        return await ask(self._redis, "SET", once(name), 1, "NX", "EX", max(1, for_s)) is not None

    async def is_taken(self, name: str) -> bool:
        """Whether somebody has taken ``name``."""
        return bool(await ask(self._redis, "EXISTS", once(name)))
