"""The store with a span around each admission and each settlement; in place of the plain one where traces are on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from proxy.domain.api_key import Credential
from proxy.domain.billing.pricing import Quote
from proxy.domain.billing.settlement import Reservation, Settlement
from proxy.domain.limits import Caller
from proxy.domain.requests.idempotency import Idempotency
from proxy.metering.store import NO_DETAILS, Details, Store


class StoreSpans(Protocol):
    """Who makes the spans."""

    def admitting(self, model: str, quote: Quote) -> AbstractContextManager[None]:
        """The span of one admission, which ends with the context."""
        ...

    def settling(self, settlement: Settlement) -> AbstractContextManager[None]:
        """The span of one settlement, which ends with the context."""
        ...


class TracedStore:
    """A store around another one."""

    def __init__(self, store: Store, spans: StoreSpans) -> None:
        """Ask ``store``, and report to ``spans``."""
        self._store = store
        self._spans = spans

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
        """As ``Store.admit``, in a span."""
        with self._spans.admitting(model, quote):
            return await self._store.admit(
                reservation_id,
                credential,
                endpoint=endpoint,
                model=model,
                quote=quote,
                idempotency=idempotency,
                details=details,
            )

    async def settle(self, settlement: Settlement) -> str:
        """As ``Store.settle``, in a span."""
        with self._spans.settling(settlement):
            return await self._store.settle(settlement)

    async def void(self, reservation_id: str, team: str, key_id: str) -> None:
        """As ``Store.void``."""
        await self._store.void(reservation_id, team, key_id)

    async def renew(self, team: str, reservation_ids: Sequence[str]) -> None:
        """As ``Store.renew``."""
        await self._store.renew(team, reservation_ids)

    def renew_soon(self, team: str, reservation_ids: Sequence[str]) -> None:
        """As ``Store.renew_soon``."""
        self._store.renew_soon(team, reservation_ids)

    def on_connected(self, callback: Callable[[], None]) -> None:
        """As ``Store.on_connected``."""
        self._store.on_connected(callback)

    async def read_own_key(self, credential: Credential) -> Caller:
        """As ``Store.read_own_key``."""
        return await self._store.read_own_key(credential)
