"""How a request that was forwarded ends: what it is charged, what is given back, and what the ledger says of it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from proxy.domain.errors import ClientGone, ProviderRefusal, UpstreamRateLimit, UpstreamUnreachable
from proxy.domain.pricing import Quote


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
    """Units held for one request. ``admitted_ms`` is by the store's clock, in milliseconds since the epoch."""

    id: str
    team: str
    key_id: str
    endpoint: str
    model: str
    quote: Quote
    admitted_ms: int
    remaining_units: int | None


@dataclass(slots=True)
class Delivery:
    """What came of a request; filled in while it runs, and settled by what it says when it ends.

    It begins as a failure, so that whatever goes wrong before anybody says otherwise is charged nothing.
    ``provider_usage`` is the provider's own account of it, as JSON.
    """

    outcome: Outcome = Outcome.FAILED
    images: int = 0
    provider: str = ""
    provider_status: int = 0
    provider_usage: bytes | None = None
    provider_ms: int = 0
    ended: bool = False

    def end(self, *, complete: bool, client_gone: bool = False) -> None:
        """Choose the outcome of a 2xx answer, from what has arrived of it."""
        self.ended = True
        if client_gone:
            self.outcome = Outcome.ABANDONED
        elif not complete:
            self.outcome = Outcome.TRUNCATED if self.images else Outcome.FAILED
        else:
            self.outcome = Outcome.DELIVERED if self.images else Outcome.EMPTY

    def end_by(self, error: BaseException) -> None:
        """Choose the outcome of a request that an error ended; what ``end`` chose before stands."""
        if self.ended:
            return
        self.ended = True
        if isinstance(error, ClientGone):
            self.outcome = Outcome.ABANDONED
        elif isinstance(error, UpstreamUnreachable):
            self.outcome = Outcome.UNREACHABLE
        elif isinstance(error, ProviderRefusal | UpstreamRateLimit):
            self.outcome = Outcome.REFUSED
        else:
            self.outcome = Outcome.TRUNCATED if self.images else Outcome.FAILED


@dataclass(frozen=True, slots=True)
class Settlement:
    """All the facts of a request's end, enough to post it even where its reservation is lost.

    ``charged_units`` = ``images`` × ``unit_price``; ``overage_units`` is the part of it beyond ``reserved_units``, and
    ``released_units`` the part of the reservation that was not needed.
    """

    reservation: Reservation
    delivery: Delivery
    charged_units: int
    overage_units: int
    released_units: int


def settle(reservation: Reservation, delivery: Delivery) -> Settlement:
    """Charge the images that were generated, whatever was asked for."""
    reserved_units = reservation.quote.units
    charged_units = delivery.images * reservation.quote.unit_price
    return Settlement(
        reservation=reservation,
        delivery=delivery,
        charged_units=charged_units,
        overage_units=max(0, charged_units - reserved_units),
        released_units=max(0, reserved_units - charged_units),
    )


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
