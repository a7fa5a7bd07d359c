"""What a request is charged whose process ended, by the ends of its tasks."""

from __future__ import annotations

from dataclasses import replace

import pytest

from proxy.domain.billing.pending import PendingTask
from proxy.domain.billing.pricing import Quote, Tier
from proxy.domain.billing.settlement import Delivery, Reservation, Settlement, settle
from proxy.domain.errors import ProviderRefusal, TaskUnknown, UpstreamError, UpstreamMisconfigured, UpstreamUnreachable
from proxy.domain.requests.idempotency import Idempotency, IdempotencyState
from proxy.metering.journal.tasks import PendingRequest
from proxy.web.pending_tasks import settle_pending

QUOTE = Quote(images=3, unit_price=5_000, units=15_000, tier=Tier.STANDARD)
RESERVATION = Reservation(
    "req_1", "acme", "acme_k", "/v1/images/generations", "bfl/flux", QUOTE, 1_000, None,
    idempotency=Idempotency("key", "f" * 64),
)  # fmt: skip
REQUEST = PendingRequest(settle(RESERVATION, Delivery()), (PendingTask("bfl", "https://api.bfl.ai/1"),) * 3)
REFUSED = ProviderRefusal("no", provider_status=400, provider_code="x", param=None)
FAILED = UpstreamError("it failed")
FAILED.reported_status = 500


def settled(*ends: int | Exception, charges_lost: bool = False) -> Settlement:
    return settle_pending(REQUEST, list(ends), charges_lost=charges_lost)


@pytest.mark.parametrize("charges_lost", [False, True])
@pytest.mark.parametrize(
    ("ends", "outcome", "images"),
    [
        ((1, 1, 1), "abandoned", 3),
        ((1, REFUSED, TaskUnknown()), "abandoned", 1),
        ((0, 0, 0), "abandoned", 0),
        ((REFUSED, REFUSED, FAILED), "refused", 0),
        ((FAILED, FAILED, FAILED), "failed", 0),
    ],
)
def test_what_is_known_is_charged_by_its_images(
    ends: tuple[int | Exception, ...], outcome: str, images: int, *, charges_lost: bool
) -> None:
    made = settled(*ends, charges_lost=charges_lost)
    assert (made.delivery.outcome, made.delivery.images) == (outcome, images)
    assert made.charged_units == images * 5_000
    assert made.delivery.served.provider == "bfl"


@pytest.mark.parametrize(
    "error", [TaskUnknown(), UpstreamMisconfigured("a key that was changed"), UpstreamUnreachable("gone"), KeyError()]
)
def test_what_is_not_known_is_charged_by_the_setting(error: Exception) -> None:
    free = settled(error, REFUSED)
    assert free.charged_units == free.delivery.images == 0
    dear = settled(error, REFUSED, charges_lost=True)
    assert (dear.delivery.outcome, dear.charged_units, dear.delivery.images) == ("expired", 15_000, 0)
    assert (dear.released_units, dear.overage_units) == (0, 0)


def test_reference_images_are_charged_with_the_images() -> None:
    quote = Quote(3, 5_000, 15_900, Tier.STANDARD, reference_images=3, reference_units=900)
    request = replace(REQUEST, settlement=settle(replace(RESERVATION, quote=quote), Delivery()))
    assert settle_pending(request, [1, 1, REFUSED], charges_lost=False).charged_units == 10_900
    assert settle_pending(request, [REFUSED] * 3, charges_lost=False).charged_units == 0


def test_a_clients_name_for_it_is_free_again_only_where_nothing_can_have_been_made() -> None:
    states = [settled(end).ending for end in (1, REFUSED, FAILED, TaskUnknown())]
    assert [None if ending is None else ending.state for ending in states] == [
        IdempotencyState.GONE, IdempotencyState.FREE, IdempotencyState.FREE, IdempotencyState.GONE,
    ]  # fmt: skip
