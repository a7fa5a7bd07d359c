"""Uploads count as requests in progress from when their key has been checked, not only from when they are admitted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from proxy.domain.errors import RateLimitExceeded
from proxy.domain.limits import Caller

RETRY_AFTER_S = 1


class Receiving:
    """The large requests that are under way in this process, by key and by team.

    The store holds those that are admitted. To hold a place there for what is being received would take a lease that is
    renewed, settled and reclaimed for a request that nobody has priced; so each process counts its own, beside what the
    store reported of the key when it was checked.
    """

    def __init__(self) -> None:
        """Nothing yet."""
        self._under_way: Counter[str] = Counter()

    @contextmanager
    def one(self, caller: Caller) -> Iterator[None]:
        """Count one more until the block is left. Raises RateLimitExceeded where key or team may have no more."""
        names = (f"key {caller.key.id}", f"team {caller.team.id}")
        for name, whose, account in zip(names, ("The key", "Its team"), (caller.key, caller.team), strict=True):
            limit = account.limits.concurrent_requests
            if limit is not None and max(self._under_way[name], account.held) >= limit:
                raise RateLimitExceeded(
                    f"{whose} may have {limit:,} requests in progress at a time (concurrent_requests), with uploads.",
                    retry_after_s=RETRY_AFTER_S,
                    rate_limit_headers={},
                )
        self._under_way.update(names)
        try:
            yield
        finally:
            self._under_way.subtract(names)
            for name in names:
                if not self._under_way[name]:
                    del self._under_way[name]
