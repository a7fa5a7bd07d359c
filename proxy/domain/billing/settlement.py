"""How a request that was forwarded ends: what it is charged, what is given back, and what the ledger says of it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

import orjson

from proxy.domain.billing.pricing import DeliveredPrices, Quote, TextPrice, TierCharge
from proxy.domain.errors import (
    ClientGone,
    NothingGenerated,
    ProviderRefusal,
    ProxyError,
    UpstreamError,
    UpstreamRateLimit,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from proxy.domain.limits import PaceUsage
from proxy.domain.parsing.image_header import Size
from proxy.domain.requests.idempotency import After, AnswerKeeper, Ending, Idempotency, KeptAnswer
from proxy.domain.requests.sizes import AskedSize

OK_STATUS = 200
ERROR_STATUS = 400


class Outcome(StrEnum):
    """Every forwarded request ends in exactly one of these."""

    DELIVERED = "delivered"
    EMPTY = "empty"
    REFUSED = "refused"
    FAILED = "failed"
    UNREACHABLE = "unreachable"
    TRUNCATED = "truncated"
    ABANDONED = "abandoned"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class Reservation:
    """Units held for one request. ``admitted_ms`` is by the store's clock, in milliseconds since the epoch.

    ``remaining_units`` is what is left of the tightest quota after it, ``paces`` the tightest pace of each kind.
    ``idempotency`` is what the client calls its request, where it does.
    """

    id: str
    team: str
    key_id: str
    endpoint: str
    model: str
    quote: Quote
    admitted_ms: int
    remaining_units: int | None
    paces: tuple[tuple[str, PaceUsage], ...] = ()
    idempotency: Idempotency | None = None


@dataclass(slots=True)
class Delivery:
    """What came of a request; filled in while it runs, and settled by what it says when it ends.

    It begins as a failure, so that whatever goes wrong before anybody says otherwise is charged nothing.
    ``provider_usage`` is the provider's account of it, as JSON; ``attempts`` counts the deployments that were asked.
    ``text_price`` is what an answer without an image costs, where it costs anything, and ``text_units`` what it is
    charged. ``sizes`` are those of the images, where they could be told, ``asked_size`` what was
    asked for; with ``delivered_prices`` they say what is charged: ``charged_by`` each tier, ``image_units`` in all.
    ``keeper`` gathers the answer where the client may ask for it again.
    """

    outcome: Outcome = Outcome.FAILED
    images: int = 0
    provider: str = ""
    provider_status: int = 0
    provider_usage: bytes | None = None
    provider_ms: int = 0
    attempts: int = 1
    ended: bool = False
    whole: bool = False
    text_price: TextPrice | None = field(default=None, compare=False)
    text_units: int = 0
    sizes: tuple[Size | None, ...] = ()
    asked_size: AskedSize | None = field(default=None, compare=False)
    delivered_prices: DeliveredPrices | None = field(default=None, compare=False)
    charged_by: tuple[TierCharge, ...] = ()
    image_units: int | None = None
    keeper: AnswerKeeper | None = field(default=None, compare=False)

    def end(self, *, complete: bool, client_gone: bool = False) -> None:
        """Choose the outcome of a 2xx answer, from what has arrived of it."""
        self.ended = True
        self.whole = complete
        if self.delivered_prices is not None:
            self.charged_by = self.delivered_prices.charges(self.sizes, self.images)
            self.image_units = sum(each.images * each.unit_price for each in self.charged_by)
        if not self.images and self.text_price is not None and (complete or client_gone):
            self.text_units = self.text_price.units(self.provider_usage)
        if client_gone:
            self.outcome = Outcome.ABANDONED
        elif not complete:
            self.outcome = Outcome.TRUNCATED if self.images else Outcome.FAILED
        else:
            self.outcome = Outcome.DELIVERED if self.images or self.text_units else Outcome.EMPTY

    def end_by(self, error: BaseException) -> None:
        """Choose the outcome of a request that an error ended; what ``end`` chose before stands."""
        if self.ended:
            return
        self.ended = True
        if isinstance(error, ClientGone):
            self.outcome = Outcome.ABANDONED
        elif isinstance(error, UpstreamUnreachable):
            self.outcome = Outcome.UNREACHABLE
        elif isinstance(error, NothingGenerated):
            self.outcome = Outcome.EMPTY
        elif isinstance(error, ProviderRefusal | UpstreamRateLimit):
            self.outcome = Outcome.REFUSED
        else:
            self.outcome = Outcome.TRUNCATED if self.images else Outcome.FAILED


@dataclass(frozen=True, slots=True)
class Settlement:
    """All the facts of a request's end, enough to post it even where its reservation is lost.

    ``charged_units`` = ``images`` × ``unit_price``, or ``image_units`` where those are known, which is the same summed
    over ``charged_by``, or ``text_units`` where there is no image. ``overage_units`` is the part of it beyond
    ``reserved_units``, and ``released_units`` the part of the reservation that was not needed. ``ending`` is what
    becomes of the client's name for the request.
    """

    reservation: Reservation
    delivery: Delivery
    charged_units: int
    overage_units: int
    released_units: int
    ending: Ending | None = None

    def without_answer(self) -> Settlement:
        """The same, to be kept where an answer would take too much room."""
        if self.ending is None or self.ending.answer is None:
            return self
        return replace(self, ending=Ending(self.ending.idempotency, After.GONE))


def settle(reservation: Reservation, delivery: Delivery, error: BaseException | None = None) -> Settlement:
    """Charge the images that were generated, whatever was asked for. ``error`` is what the request ended by."""
    reserved_units = reservation.quote.units
    charged_units = delivery.text_units
    if delivery.images:
        image_units = delivery.image_units
        charged_units = delivery.images * reservation.quote.unit_price if image_units is None else image_units
    return Settlement(
        reservation=reservation,
        delivery=delivery,
        charged_units=charged_units,
        overage_units=max(0, charged_units - reserved_units),
        released_units=max(0, reserved_units - charged_units),
        ending=None if reservation.idempotency is None else _end(reservation.idempotency, delivery, error),
    )


def settle_images(reservation: Reservation, delivery: Delivery) -> Settlement:
    """The same by the number of images alone, where nothing else that is known of a request can be reckoned with."""
    charged_units = delivery.images * reservation.quote.unit_price
    return Settlement(
        reservation=reservation,
        delivery=Delivery(
            outcome=delivery.outcome,
            images=delivery.images,
            provider=delivery.provider,
            provider_status=delivery.provider_status,
            provider_ms=delivery.provider_ms,
            attempts=delivery.attempts,
            ended=True,
        ),
        charged_units=charged_units,
        overage_units=max(0, charged_units - reservation.quote.units),
        released_units=max(0, reservation.quote.units - charged_units),
        ending=None if reservation.idempotency is None else Ending(reservation.idempotency, After.GONE),
    )


def _end(idempotency: Idempotency, delivery: Delivery, error: BaseException | None) -> Ending:
    """Free the key only where nothing can have been generated: after anything else a second try generates twice.

    That is where the provider was not reached, or said itself that it had failed.
    """
    outcome = delivery.outcome
    if outcome in (Outcome.UNREACHABLE, Outcome.REFUSED) or not delivery.provider:
        return Ending(idempotency, After.FREE)
    if outcome is Outcome.FAILED and delivery.provider_status >= ERROR_STATUS:
        return Ending(idempotency, After.FREE)
    # What nobody knows the end of is no answer to be given again for a day.
    is_told = isinstance(error, ProxyError) and not isinstance(error, ClientGone | UpstreamError | UpstreamTimeout)
    if isinstance(error, ProxyError) and is_told:
        return Ending(idempotency, After.DONE, KeptAnswer(error.wire_status, orjson.dumps(error.body())))
    body = delivery.keeper.body if delivery.keeper is not None and delivery.whole else None
    if error is not None or body is None:
        return Ending(idempotency, After.GONE)
    return Ending(idempotency, After.DONE, KeptAnswer(OK_STATUS, body))


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """One line of the ledger. ``id`` is ``<team>_<milliseconds>-<sequence>`` and sorts by time within a team.

    ``kind`` is ``request`` or ``grant``; ``facts`` are what the entry tells, by name.
    """

    id: str
    at_ms: int
    kind: str
    team: str
    facts: dict[str, Any]
