"""Admit a request, hold its reservation while it runs, and settle it when it has ended, whatever happened."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from types import TracebackType

from proxy.domain.api_key import Credential
from proxy.domain.errors import StoreUnavailable
from proxy.domain.pricing import Quote
from proxy.domain.settlement import Delivery, Reservation, Settlement, settle
from proxy.metering.leases import Leases
from proxy.metering.store import Store
from proxy.telemetry.metrics import Metrics
from proxy.telemetry.observation import Observation

logger = logging.getLogger(__name__)

FIRST_RETRY_S = 0.1
LAST_RETRY_S = 5.0
OWED_LIMIT = 10_000
"""Admissions taken back at once, while the store is away; settlements are never too many."""


class Meter:
    """Holds the reservations of this process, and sees to it that each is settled."""

    def __init__(self, store: Store, metrics: Metrics, *, lease_ms: int) -> None:
        """Admit and settle in ``store``, which gives a reservation a lease of ``lease_ms`` milliseconds."""
        self.store = store
        self._leases = Leases(store, lease_ms=lease_ms)
        self._metrics = metrics
        self._owed: dict[asyncio.Task[None], object] = {}

    def admit(self, credential: Credential, observation: Observation, model: str, quote: Quote) -> _Held:
        """A context: entering it admits the request or raises; leaving it settles what ``Delivery`` says."""
        return _Held(self, credential, observation, model, quote)

    def start(self) -> None:
        """Keep the leases of what is under way; needs a running event loop."""
        self._leases.start()

    async def close(self, timeout_s: float) -> None:
        """Give what the store has not taken ``timeout_s`` seconds more, and log what is lost."""
        if self._owed:
            await asyncio.wait(self._owed, timeout=timeout_s)
        await self._leases.stop()
        for task, what in list(self._owed.items()):
            task.cancel()
            logger.critical("the store could not be reached, and was not told: %s", what)

    def reserved(self, reservation: Reservation) -> None:
        """Keep the lease of an admission, and count it."""
        self._leases.hold(reservation.id, reservation.team)
        self._metrics.reserved(reservation)

    async def post(self, settlement: Settlement) -> None:
        """Settle, at once or as soon as the store can be reached. Being cancelled does not stop it."""
        self._metrics.settled(settlement)
        try:
            await self._settle(settlement)
        except StoreUnavailable:
            self._tell_later(lambda: self._settle(settlement), settlement)
        except asyncio.CancelledError:
            self._tell_later(lambda: self._settle(settlement), settlement)
            raise

    async def _settle(self, settlement: Settlement) -> None:
        await self.store.settle(settlement)
        self._leases.drop(settlement.reservation.id)

    def void(self, reservation_id: str, credential: Credential) -> None:
        """Take an admission back that may or may not have happened, as soon as the store can be reached."""
        if len(self._owed) < OWED_LIMIT:
            self._tell_later(lambda: self.store.void(reservation_id, credential), f"void {reservation_id}")

    def _tell_later(self, tell: Callable[[], Awaitable[None]], what: object) -> None:
        task = asyncio.get_running_loop().create_task(self._tell_until_taken(tell))
        self._owed[task] = what
        task.add_done_callback(self._told)
        self._metrics.unsettled(len(self._owed))

    def _told(self, task: asyncio.Task[None]) -> None:
        self._owed.pop(task, None)
        self._metrics.unsettled(len(self._owed))

    async def _tell_until_taken(self, tell: Callable[[], Awaitable[None]]) -> None:
        pause_s = FIRST_RETRY_S
        while True:
            try:
                await tell()
            except StoreUnavailable:
                await asyncio.sleep(pause_s)
                pause_s = min(LAST_RETRY_S, pause_s * 2)
            else:
                return


class _Held:
    """One request's reservation, from admission to settlement."""

    __slots__ = ("_credential", "_meter", "_model", "_observation", "_quote", "delivery", "reservation")

    reservation: Reservation

    def __init__(
        self, meter: Meter, credential: Credential, observation: Observation, model: str, quote: Quote
    ) -> None:
        self._meter = meter
        self._credential = credential
        self._observation = observation
        self._model = model
        self._quote = quote
        self.delivery = Delivery()

    async def __aenter__(self) -> Delivery:
        observation = self._observation
        try:
            self.reservation = await self._meter.store.admit(
                observation.request_id,
                self._credential,
                endpoint=observation.endpoint,
                model=self._model,
                quote=self._quote,
            )
        except (StoreUnavailable, asyncio.CancelledError) as error:
            if not isinstance(error, StoreUnavailable) or error.may_have_happened:
                self._meter.void(observation.request_id, self._credential)
            raise
        self._meter.reserved(self.reservation)
        return self.delivery

    async def __aexit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        observation, delivery = self._observation, self.delivery
        if error is not None:
            delivery.end_by(error)
        delivery.provider_ms = round(observation.provider_s * 1000)
        settlement = settle(self.reservation, delivery)
        observation.outcome = delivery.outcome.value
        observation.images = delivery.images
        observation.charged_units = settlement.charged_units
        observation.provider = delivery.provider
        observation.provider_status = delivery.provider_status
        await self._meter.post(settlement)
