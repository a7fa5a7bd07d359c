"""What may happen once, as all gateways on one store see it: a sign-in link is used, a session is ended."""

from __future__ import annotations

from proxy.metering.redis.pool import StorePool, ask, reads_of
from proxy.metering.redis_store.keys import once


class Once:
    """Names that were taken, each remembered for as long as it could be used. Raises StoreUnavailable."""

    def __init__(self, pool: StorePool) -> None:
        """Remember in Redis, through ``pool``."""
        self._redis = reads_of(pool)

    async def take(self, name: str, *, for_s: int) -> bool:
        """Whether ``name`` is taken by this call, and was not before; it is remembered ``for_s`` seconds."""
        return await ask(self._redis, "SET", once(name), 1, "NX", "EX", max(1, for_s)) is not None

    async def is_taken(self, name: str) -> bool:
        """Whether somebody has taken ``name``."""
        return bool(await ask(self._redis, "EXISTS", once(name)))
