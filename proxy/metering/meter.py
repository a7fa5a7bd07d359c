"""Admit a request, hold its reservation while it runs, and settle it when it has ended, whatever happened."""

from __future__ import annotations

import asyncio
import logging
from types import TracebackType

from proxy.domain.api_key import Credential
from proxy.domain.errors import StoreUnavailable
from proxy.domain.pricing import Quote
from proxy.domain.settlement import Delivery, Reservation, Settlement, settle
from proxy.metering.store import Store
from proxy.telemetry.metrics import Metrics
from proxy.telemetry.observation import Observation

logger = logging.getLogger(__name__)

FIRST_RETRY_S = 0.1
LAST_RETRY_S = 5.0


class Meter:
    """Holds the reservations of this process, and sees to it that each is settled."""

    def __init__(self, store: Store, metrics: Metrics) -> None:
        """Admit and settle in ``store``."""
        self.store = store
        self._metrics = metrics
        self._unsettled: dict[asyncio.Task[None], Settlement] = {}

    def admit(self, credential: Credential, observation: Observation, model: str, quote: Quote) -> _Held:
        """A context: entering it admits the request or raises; leaving it settles what ``Delivery`` says."""
        return _Held(self, credential, observation, model, quote)

    async def close(self, timeout_s: float) -> None:
        """Give the settlements that the store has not taken ``timeout_s`` seconds more, and log those that it lost."""
        if self._unsettled:
            await asyncio.wait(self._unsettled, timeout=timeout_s)
        for task, settlement in list(self._unsettled.items()):
            task.cancel()
            logger.critical("not settled, the store could not be reached: %s", settlement)

    def reserved(self, reservation: Reservation) -> None:
        """Count an admission."""
        self._metrics.reserved(reservation)

    async def post(self, settlement: Settlement) -> None:
        """Settle, at once or as soon as the store can be reached. Being cancelled does not stop it."""
        self._metrics.settled(settlement)
        try:
            await self.store.settle(settlement)
        except StoreUnavailable:
            self._post_later(settlement)
        except asyncio.CancelledError:
            self._post_later(settlement)
            raise

    def _post_later(self, settlement: Settlement) -> None:
        task = asyncio.get_running_loop().create_task(self._post_until_taken(settlement))
        self._unsettled[task] = settlement
        task.add_done_callback(self._taken)
        self._metrics.unsettled(len(self._unsettled))

    def _taken(self, task: asyncio.Task[None]) -> None:
        self._unsettled.pop(task, None)
        self._metrics.unsettled(len(self._unsettled))

    async def _post_until_taken(self, settlement: Settlement) -> None:
        pause_s = FIRST_RETRY_S
        while True:
            try:
                await self.store.settle(settlement)
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
        self.reservation = await self._meter.store.admit(
            observation.request_id,
            self._credential,
            endpoint=observation.endpoint,
            model=self._model,
            quote=self._quote,
        )
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
