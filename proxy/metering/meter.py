"""Admit a request, hold its reservation while it runs, and settle it when it has ended, whatever happened."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from types import TracebackType
from typing import TypeVar

from proxy.domain.api_key import Credential
from proxy.domain.billing.offers import Offer
from proxy.domain.billing.pending import PendingTask
from proxy.domain.billing.pricing import NO_TERMS, Quote, Terms
from proxy.domain.billing.settlement import Delivery, Reservation, Settlement, settle, settle_images
from proxy.domain.errors import ProxyError, StoreUnavailable
from proxy.domain.limits import rate_limit_headers
from proxy.domain.people import NOBODY
from proxy.domain.requests.idempotency import Idempotency
from proxy.metering.journal.journal import Journal
from proxy.metering.journal.records import Posting, Void
from proxy.metering.journal.tasks import TaskJournal
from proxy.metering.leases import Leases
from proxy.metering.outbox import Outbox
from proxy.metering.store import NO_DETAILS, Details, Store
from proxy.telemetry.metrics import Metrics
from proxy.telemetry.observation import Observation

logger = logging.getLogger(__name__)

T = TypeVar("T")


class Meter:
    """Holds the reservations of this process, and sees to it that each is settled."""

    def __init__(
        self,
        store: Store,
        journal: Journal,
        metrics: Metrics,
        *,
        lease_ms: int,
        answer_bytes: int = 0,
        tasks: TaskJournal | None = None,
    ) -> None:
        """Admit and settle in ``store``, which gives a reservation a lease of ``lease_ms`` milliseconds.

        What the store does not take is kept in ``journal``, tasks that providers have accepted in ``tasks``. Answers
        of at most ``answer_bytes`` bytes are kept for clients that send an Idempotency-Key. Needs a running event loop.
        """
        self.answer_bytes = answer_bytes
        self.store = store
        self.tasks = tasks
        self._leases = Leases(store, lease_ms=lease_ms)
        self._outbox = Outbox(store, journal, self._leases, metrics)
        self._metrics = metrics

    def admit(
        self,
        credential: Credential,
        observation: Observation,
        model: str,
        quote: Quote,
        idempotency: Idempotency | None = None,
        terms: Terms = NO_TERMS,
        alias: str | None = None,
        fallbacks: tuple[Offer, ...] = (),
    ) -> _AdmittedRequest:
        """A context: entering it admits the request or raises; leaving it settles what ``Delivery`` says.

        ``alias`` is the name by which the client asks for the model, where that is another one. Of the ``fallbacks``,
        the delivery has those that the client may use and can pay.
        """
        delivery = Delivery(terms, fallbacks=fallbacks)
        return _AdmittedRequest(self, credential, observation, model, quote, idempotency, delivery, alias)

    async def start(self) -> None:
        """Keep the leases of what is under way, and post what the process before has left. Raises JournalError."""
        self._leases.start()
        await self._outbox.start()

    async def close(self, timeout_s: float) -> None:
        """Give the store ``timeout_s`` seconds more to take what it has not; the rest stays in the journal."""
        await self._outbox.close(timeout_s)
        await self._leases.stop()
        if self.tasks is not None:
            await self.tasks.close()

    @property
    def refusal(self) -> StoreUnavailable | None:
        """Why a settlement would not be safe if the store went away now; None where it would."""
        return self._outbox.refusal

    def reserved(self, reservation: Reservation) -> None:
        """Keep the lease of an admission, and count it."""
        self._leases.hold(reservation.id, reservation.team)
        _count(self._metrics.reserved, reservation)

    def adopt(self, reservation: Reservation) -> None:
        """The same for one of a process that is gone, whose lease may be about to expire."""
        self.reserved(reservation)
        self.store.renew_soon(reservation.team, [reservation.id])

    async def post(self, settlement: Settlement) -> None:
        """Settle in the store, or else in the journal, whatever is raised on the way. Being cancelled does not stop it.

        Nothing but the money is seen to before it is safe; a metric comes after, and cannot fail a request.
        """
        reservation_id = settlement.reservation.id
        try:
            await self.store.settle(settlement)
        except Exception as error:
            if not isinstance(error, StoreUnavailable):
                logger.exception("%s could not be settled, and is written to the journal", reservation_id)
            await self._outbox.add(Posting(settlement.without_answer()))
        except BaseException:
            self._outbox.add_soon(Posting(settlement.without_answer()))
            raise
        else:
            self._leases.drop(reservation_id)
        finally:
            _count(self._metrics.settled, settlement)

    def void(self, reservation_id: str, credential: Credential) -> None:
        """Void an admission that may or may not have happened, as soon as the store can be reached."""
        self._outbox.add_soon(Void(reservation_id, credential.team, credential.key_id))


def _count(metric: Callable[[T], None], fact: T) -> None:
    try:
        metric(fact)
    except Exception:
        logger.exception("a metric could not be counted")


def _may_have_reserved(error: BaseException) -> bool:
    """A refusal reserved nothing; after anything unforeseen, nobody else would void what may be held."""
    if isinstance(error, StoreUnavailable):
        return error.may_have_happened
    return not isinstance(error, ProxyError)


class _AdmittedRequest:
    """One request's reservation, from admission to settlement."""

    __slots__ = (
        "_alias", "_credential", "_idempotency", "_kept_tasks", "_meter", "_model", "_observation", "_quote", "_tasks",
        "delivery", "reservation",
    )  # fmt: skip

    reservation: Reservation

    def __init__(
        self,
        meter: Meter,
        credential: Credential,
        observation: Observation,
        model: str,
        quote: Quote,
        idempotency: Idempotency | None,
        delivery: Delivery,
        alias: str | None,
    ) -> None:
        self._meter = meter
        self._credential = credential
        self._observation = observation
        self._model = model
        self._quote = quote
        self._idempotency = idempotency
        self._alias = alias
        self.delivery = delivery
        self._tasks = self._kept_tasks = 0

    @property
    def _made_reservation(self) -> Reservation:
        """The reservation as it is settled: at the price of the model that was asked last."""
        offer = self.delivery.offer
        return self.reservation if offer is None else self.reservation.made_by(offer.model.id, offer.quote)

    async def keep(self, task: PendingTask) -> None:
        """Write down a task that a provider has accepted."""
        journal = self._meter.tasks
        self._tasks += 1
        if journal is not None and await journal.keep(self._made_reservation, task):
            self._kept_tasks += 1

    async def __aenter__(self) -> Delivery:
        observation, fallbacks, details = self._observation, self.delivery.fallbacks, NO_DETAILS
        if fallbacks or self._alias is not None or observation.person is not NOBODY:
            units = {each.model.id: each.quote.units for each in fallbacks}
            details = Details(self._alias, units, observation.person)
        refusal = self._meter.refusal
        if refusal is not None:
            raise refusal
        try:
            self.reservation = await self._meter.store.admit(
                observation.request_id,
                self._credential,
                endpoint=observation.endpoint,
                model=self._model,
                quote=self._quote,
                idempotency=self._idempotency,
                details=details,
            )
            if fallbacks:
                allowed = self.reservation.fallbacks
                self.delivery.fallbacks = tuple(each for each in fallbacks if each.model.id in allowed)
            self._meter.reserved(self.reservation)
            self.delivery.served.keeper = self
            if self.reservation.rates:
                observation.rate_limit_headers = rate_limit_headers(self.reservation.rates)
        except BaseException as error:
            if _may_have_reserved(error):
                self._meter.void(observation.request_id, self._credential)
            raise
        return self.delivery

    async def __aexit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        observation, delivery = self._observation, self.delivery
        # It holds this, which holds it.
        delivery.served.keeper = None
        if self._is_left_to_the_next(error):
            return
        if error is not None:
            delivery.end_by(error)
        served = delivery.served
        served.ms = round(observation.provider_s * 1000)
        if delivery.offer is not None:
            observation.made_by = delivery.offer.model.id
        settlement = self._settle(error)
        observation.outcome = str(delivery.outcome)
        observation.images = delivery.images
        observation.charged_units = settlement.charged_units
        observation.provider = served.provider
        observation.provider_status = served.status
        await self._meter.post(settlement)
        if self._tasks and self._meter.tasks is not None:
            self._meter.tasks.settled(self.reservation.id)

    def _is_left_to_the_next(self, error: BaseException | None) -> bool:
        """Whether this process ends while the request's tasks go on: whoever comes after sees how."""
        if not isinstance(error, asyncio.CancelledError) or self.delivery.ended:
            return False
        return self._kept_tasks == self._tasks > 0

    def _settle(self, error: BaseException | None) -> Settlement:
        try:
            return settle(self._made_reservation, self.delivery, error)
        except Exception:
            logger.exception("%s is settled by its images alone", self.reservation.id)
            return settle_images(self._made_reservation, self.delivery)
