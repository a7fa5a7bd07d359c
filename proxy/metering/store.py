"""What the gateway asks of its store. Redis is behind it; a test may put something else there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import field
from typing import Protocol

from proxy.domain.api_key import Credential
from proxy.domain.billing.pricing import Quote
from proxy.domain.billing.settlement import Reservation, Settlement
from proxy.domain.limits import Caller
from proxy.domain.people import NOBODY, Person
from proxy.domain.records import record
from proxy.domain.requests.idempotency import Idempotency


@record
class Details:
    """What only some requests come with.

    Who may use the model's ``alias`` may use the model where it is asked for by that name. Of the other models in
    ``fallback_units``, by their ids, those may make it that the key may use and has the quota for. ``person`` is whom
    it is for, who has limits of each user where the key or its team sets them; all who name no user are one there.
    """

    alias: str | None = None
    fallback_units: Mapping[str, int] = field(default_factory=dict)
    person: Person = NOBODY

    @property
    def names_only_a_person(self) -> bool:
        """Whether it has nothing else."""
        return self.alias is None and not self.fallback_units


NO_DETAILS = Details()


class SettlementTrimmedError(Exception):
    """The ledger that would show whether it was posted has been trimmed since; nothing was posted."""


class Store(Protocol):
    """The hot path: one round trip to admit, one to settle."""

    async def admit(
        self,
        reservation_id: str,
        credential: Credential,
        *,
        endpoint: str,
        model: str,
        quote: Quote,
        idempotency: Idempotency | None = None,
        details: Details = NO_DETAILS,
    ) -> Reservation:
        """Authenticate, check every limit and reserve, all or nothing.

        The dearest of the model and the reservation's ``fallbacks`` is reserved.
        Raises InvalidApiKey, ModelNotAllowed, InsufficientQuota, RateLimitExceeded or StoreUnavailable; and where it
        has been sent before, AlreadyAnswered, IdempotencyInProgress, IdempotencyResponseGone or IdempotencyMismatch.
        Each of them reserved nothing, and took no place in a rate limit.
        """
        ...

    async def void(self, reservation_id: str, team: str, key_id: str) -> None:
        """Void an admission that nobody knows the answer of. Raises StoreUnavailable; asking again is safe."""
        ...

    async def renew(self, team: str, reservation_ids: Sequence[str]) -> None:
        """Give leases of one team their whole length again. Raises StoreUnavailable."""
        ...

    def renew_soon(self, team: str, reservation_ids: Sequence[str]) -> None:
        """The same without waiting for it to happen."""
        ...

    def on_connected(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` with each new connection; what it asks for then goes before all that waits."""
        ...

    async def settle(self, settlement: Settlement) -> str:
        """Post the charge, release the rest, and write the ledger entry: once, however often it is asked.

        The entry's id within its team's ledger. Raises StoreUnavailable, where it may or may not have been posted;
        asking again is safe. The memory of what was settled is finite; where it is too short, the ledger itself is
        looked through. What Redis loses in the seconds after is posted again on the next connection to it.
        Raises SettlementTrimmedError where the ledger no longer reaches back far enough to know; asking again is
        useless.
        """
        ...

    async def read_own_key(self, credential: Credential) -> Caller:
        """Authenticate, and read the key's record and its team's. Raises InvalidApiKey or StoreUnavailable."""
        ...
