"""How a request that was forwarded ends: what it is charged, what is given back, and what the ledger says of it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

import orjson

from proxy.domain.billing.charges import Basis, Made, Told
from proxy.domain.billing.offers import Offer
from proxy.domain.billing.pending import TaskKeeper
from proxy.domain.billing.pricing import NO_TERMS, Quote, Terms, TierCharge
from proxy.domain.errors import (
    ClientGone,
    NoCredentials,
    NothingGenerated,
    ProviderRefusal,
    ProxyError,
    UpstreamError,
    UpstreamRateLimit,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from proxy.domain.limits import RateUsage
from proxy.domain.parsing.image_header import Size
from proxy.domain.people import NOBODY, Person
from proxy.domain.records import record
from proxy.domain.requests.idempotency import Idempotency, IdempotencyResult, IdempotencyState, KeptAnswer

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


@record
class Reservation:
    """Units held for one request. ``admitted_ms`` is by the store's clock, in milliseconds since the epoch.

    ``remaining_units`` is what is left of the tightest quota after it, ``rates`` the tightest rate limit of each kind.
    ``idempotency`` is what the client calls its request, where it does. ``fallbacks`` are the other models, by id, that
    may make it in place of ``model``: the units are enough for the dearest of them. ``asked_model`` is the one that was
    asked for where another one has made it. ``person`` is whom it is for, as the ledger has it; ``per_user`` says whose
    limits of each user it counts in: ``key``, ``team``, ``both``, or none's.
    """

    id: str
    team: str
    key_id: str
    endpoint: str
    model: str
    quote: Quote
    admitted_ms: int
    remaining_units: int | None
    rates: tuple[tuple[str, RateUsage], ...] = ()
    idempotency: Idempotency | None = None
    fallbacks: tuple[str, ...] = ()
    asked_model: str = ""
    person: Person = NOBODY
    per_user: str = ""

    def made_by(self, model: str, quote: Quote) -> Reservation:
        """The same where another model makes it: at its price, out of what is held."""
        return replace(self, model=model, asked_model=self.model, quote=replace(quote, units=self.quote.units))


@dataclass(slots=True)
class Served:
    """Which provider was asked last, and what it said; written by whoever asks it, and nobody else.

    ``status`` is 0 until it has answered; ``attempts`` counts the deployments that were asked; ``ms`` is the time of
    waiting for them, in milliseconds. ``is_accepted`` says that a provider works on it as a task, so that nobody else
    may be asked; ``keeper`` writes such tasks down.
    """

    provider: str = ""
    status: int = 0
    attempts: int = 1
    ms: int = 0
    is_accepted: bool = False
    keeper: TaskKeeper | None = field(default=None, repr=False, compare=False)


@dataclass(slots=True)
class Delivery:
    """What came of a request; written by the relay, and settled by the meter.

    It begins as a failure, so that whatever goes wrong before anybody says otherwise is charged nothing.
    ``provider_usage`` is the provider's account of it, as JSON; where several requests to it made the answer,
    ``reports`` has the images and the account of each. ``sizes`` are those of the images, where they are known, and
    ``told`` is what the answer says of each. ``whole`` says that nothing of the provider's answer is missing, ``body``
    is what the client got, where that is kept. ``fallbacks`` are the other models that may be asked, and ``offer`` is
    the one that was, in place of the model that the request is for.
    """

    terms: Terms = field(default=NO_TERMS, compare=False)
    served: Served = field(default_factory=Served)
    outcome: Outcome = Outcome.FAILED
    ended: bool = False
    whole: bool = False
    images: int = 0
    sizes: tuple[Size | None, ...] = ()
    told: tuple[Told, ...] = ()
    provider_usage: bytes | None = None
    reports: tuple[tuple[int, bytes | None], ...] = ()
    body: bytes | None = field(default=None, compare=False)
    fallbacks: tuple[Offer, ...] = ()
    offer: Offer | None = None

    def ask_instead(self, offer: Offer) -> None:
        """Another model is asked from now on, at its own terms."""
        self.offer, self.terms = offer, offer.terms

    def end(self, *, complete: bool, client_gone: bool = False) -> None:
        """Choose the outcome of a 2xx answer, from what has arrived of it."""
        self.ended = True
        self.whole = complete
        if client_gone:
            self.outcome = Outcome.ABANDONED
        elif not complete:
            self.outcome = Outcome.TRUNCATED if self.images else Outcome.FAILED
        else:
            self.outcome = Outcome.DELIVERED if self.images or self.text_units else Outcome.EMPTY

    @property
    def text_units(self) -> int:
        """What an answer without an image is charged; nothing where the provider broke it off."""
        if self.images or not (self.whole or self.outcome is Outcome.ABANDONED):
            return 0
        return self.terms.text_units(self.provider_usage)

    def end_by(self, error: BaseException) -> None:
        """Choose the outcome of a request that an error ended; what ``end`` chose before stands."""
        if self.ended:
            return
        self.ended = True
        if isinstance(error, ClientGone):
            self.outcome = Outcome.ABANDONED
        elif isinstance(error, UpstreamUnreachable | NoCredentials):
            self.outcome = Outcome.UNREACHABLE
        elif isinstance(error, NothingGenerated):
            self.outcome = Outcome.EMPTY
        elif isinstance(error, ProviderRefusal | UpstreamRateLimit):
            self.outcome = Outcome.REFUSED
        else:
            self.outcome = Outcome.TRUNCATED if self.images else Outcome.FAILED


@record
class Settlement:
    """All the facts of a request's end, enough to post it even where its reservation is lost.

    ``charged_units`` are for its images, or for its text where there is no image. ``charged_by`` sums them up by tier
    where images are charged by the size that they came in, and ``basis`` says what decided them at a model that has
    prices of its own. ``ending`` is what becomes of the client's name for the request.
    """

    reservation: Reservation
    delivery: Delivery
    charged_units: int
    charged_by: tuple[TierCharge, ...] = ()
    ending: IdempotencyResult | None = None
    basis: Basis | None = None

    @property
    def overage_units(self) -> int:
        """The part of the charge beyond what was reserved."""
        return max(0, self.charged_units - self.reservation.quote.units)

    @property
    def released_units(self) -> int:
        """The part of the reservation that was not needed."""
        return max(0, self.reservation.quote.units - self.charged_units)

    def without_answer(self) -> Settlement:
        """The same, to be kept where an answer would take too much room."""
        if self.ending is None or self.ending.answer is None:
            return self
        return replace(self, ending=IdempotencyResult(self.ending.idempotency, IdempotencyState.GONE))


def settle(reservation: Reservation, delivery: Delivery, error: BaseException | None = None) -> Settlement:
    """Charge the images that were generated, whatever was asked for. ``error`` is what the request ended by."""
    ending = None if reservation.idempotency is None else _end(reservation.idempotency, delivery, error)
    prices, agreed = delivery.terms.delivered_prices, delivery.terms.prices
    if not delivery.images:
        return Settlement(reservation, delivery, delivery.text_units, ending=ending)
    if agreed is not None:
        made = Made(delivery.images, delivery.told, delivery.sizes, delivery.provider_usage, delivery.reports)
        charge = agreed.charge(made)
        return Settlement(reservation, delivery, charge.units, ending=ending, basis=charge.basis)
    if prices is None:
        return Settlement(reservation, delivery, delivery.images * reservation.quote.unit_price, ending=ending)
    charged_by = prices.charges(delivery.sizes, delivery.images)
    charged_units = sum(each.images * each.unit_price for each in charged_by)
    return Settlement(reservation, delivery, charged_units, charged_by, ending)


def settle_images(reservation: Reservation, delivery: Delivery) -> Settlement:
    """The same by the number of images alone, where nothing else that is known of a request can be reckoned with."""
    known = Delivery(served=delivery.served, outcome=delivery.outcome, ended=True, images=delivery.images)
    ending = (
        None if reservation.idempotency is None else IdempotencyResult(reservation.idempotency, IdempotencyState.GONE)
    )
    return Settlement(reservation, known, reservation.quote.units_for(delivery.images), ending=ending)


def _end(idempotency: Idempotency, delivery: Delivery, error: BaseException | None) -> IdempotencyResult:
    """Free the key only where nothing can have been generated: after anything else a second try generates twice.

    That is where the provider was not reached, or said itself that it had failed.
    """
    outcome = delivery.outcome
    if outcome in (Outcome.UNREACHABLE, Outcome.REFUSED) or not delivery.served.provider:
        return IdempotencyResult(idempotency, IdempotencyState.FREE)
    status = (
        error.reported_status if isinstance(error, ProxyError) and error.reported_status else delivery.served.status
    )
    if outcome is Outcome.FAILED and status >= ERROR_STATUS:
        return IdempotencyResult(idempotency, IdempotencyState.FREE)
    # What nobody knows the end of is no answer to be given again for a day.
    is_told = isinstance(error, ProxyError) and not isinstance(error, ClientGone | UpstreamError | UpstreamTimeout)
    if isinstance(error, ProxyError) and is_told:
        return IdempotencyResult(
            idempotency, IdempotencyState.DONE, KeptAnswer(error.wire_status, orjson.dumps(error.body()))
        )
    if error is not None or delivery.body is None:
        return IdempotencyResult(idempotency, IdempotencyState.GONE)
    return IdempotencyResult(idempotency, IdempotencyState.DONE, KeptAnswer(OK_STATUS, delivery.body))


@record
class LedgerEntry:
    """One line of the ledger. ``id`` is ``<team>_<milliseconds>-<sequence>`` and sorts by time within a team.

    ``kind`` is ``request`` or ``grant``; ``facts`` are what the entry says, by name.
    """

    id: str
    at_ms: int
    kind: str
    team: str
    facts: dict[str, Any]
