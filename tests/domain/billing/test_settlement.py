from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.domain.billing.pricing import DeliveredPrices, Quote, Terms, Tier, TierCharge
from proxy.domain.billing.settlement import Delivery, Outcome, settle
from proxy.domain.errors import (
    ClientGone,
    InternalError,
    ProviderRefusal,
    UpstreamError,
    UpstreamMisconfigured,
    UpstreamRateLimit,
    UpstreamTimeout,
    UpstreamTruncated,
    UpstreamUnreachable,
)
from proxy.domain.parsing.image_header import SIZES_LIMIT
from tests.domain.samples import make_quote, make_reservation

PRICE = 5_000
REFUSAL = ProviderRefusal("no", provider_status=400, provider_code=None, param=None)

finish = partial(Delivery.end, complete=True)
break_off = partial(Delivery.end, complete=False)
lose_client = partial(Delivery.end, complete=True, client_gone=True)
lose_both = partial(Delivery.end, complete=False, client_gone=True)


def fail_with(error: BaseException) -> Callable[[Delivery], None]:
    return lambda delivery: delivery.end_by(error)


@pytest.mark.parametrize(
    ("images", "end", "outcome", "charged", "overage", "released"),
    [
        (1, finish, "delivered", 1 * PRICE, 0, 2 * PRICE),
        (3, finish, "delivered", 3 * PRICE, 0, 0),
        (9, finish, "delivered", 9 * PRICE, 6 * PRICE, 0),
        (0, finish, "empty", 0, 0, 3 * PRICE),
        (0, fail_with(REFUSAL), "refused", 0, 0, 3 * PRICE),
        (0, fail_with(UpstreamRateLimit("later")), "refused", 0, 0, 3 * PRICE),
        (0, fail_with(UpstreamUnreachable("nobody there")), "unreachable", 0, 0, 3 * PRICE),
        (0, fail_with(UpstreamError("500")), "failed", 0, 0, 3 * PRICE),
        (0, fail_with(ClientGone()), "abandoned", 0, 0, 3 * PRICE),
        (0, fail_with(UpstreamMisconfigured("401")), "failed", 0, 0, 3 * PRICE),
        (0, fail_with(UpstreamTimeout("late")), "failed", 0, 0, 3 * PRICE),
        (0, fail_with(InternalError("a bug")), "failed", 0, 0, 3 * PRICE),
        (0, fail_with(RuntimeError("a bug")), "failed", 0, 0, 3 * PRICE),
        (0, fail_with(KeyboardInterrupt()), "failed", 0, 0, 3 * PRICE),
        (0, break_off, "failed", 0, 0, 3 * PRICE),
        (1, break_off, "truncated", 1 * PRICE, 0, 2 * PRICE),
        (2, break_off, "truncated", 2 * PRICE, 0, 1 * PRICE),
        (2, lose_client, "abandoned", 2 * PRICE, 0, 1 * PRICE),
        (0, lose_client, "abandoned", 0, 0, 3 * PRICE),
        (1, lose_both, "abandoned", 1 * PRICE, 0, 2 * PRICE),
    ],
)
def test_what_happened_is_charged_as_promised(
    images: int, end: Callable[[Delivery], None], outcome: str, charged: int, overage: int, released: int
) -> None:
    delivery = Delivery(images=images)
    end(delivery)
    assert delivery.outcome.value == outcome
    assert delivery.ended
    settlement = settle(make_reservation(make_quote(3, PRICE)), delivery)
    found = (settlement.charged_units, settlement.overage_units, settlement.released_units)
    assert found == (charged, overage, released)


def test_what_nobody_has_ended_is_a_failure_that_costs_nothing() -> None:
    delivery = Delivery()
    assert (delivery.outcome, delivery.ended) == (Outcome.FAILED, False)
    settlement = settle(make_reservation(make_quote(3, PRICE)), delivery)
    assert (settlement.charged_units, settlement.released_units) == (0, 3 * PRICE)


@pytest.mark.parametrize("error", [UpstreamTruncated("cut"), UpstreamError("500"), REFUSAL, RuntimeError("a bug")])
def test_an_error_after_the_end_changes_nothing(error: BaseException) -> None:
    for end in (finish, break_off, lose_client):
        delivery = Delivery(images=2)
        end(delivery)
        outcome = delivery.outcome
        delivery.end_by(error)
        assert delivery.outcome is outcome


def test_the_first_error_says_how_it_ended() -> None:
    delivery = Delivery()
    delivery.end_by(UpstreamUnreachable("nobody there"))
    delivery.end_by(UpstreamError("500"))
    assert delivery.outcome is Outcome.UNREACHABLE


@given(st.integers(1, 1_000), st.integers(0, 12_500_000), st.integers(0, 2_000))
def test_what_was_reserved_is_charged_without_its_overage_or_released(
    reserved_images: int, unit_price: int, images: int
) -> None:
    quote = make_quote(reserved_images, unit_price)
    settlement = settle(make_reservation(quote), Delivery(outcome=Outcome.DELIVERED, images=images))
    assert quote.units == settlement.charged_units - settlement.overage_units + settlement.released_units
    assert settlement.charged_units == images * unit_price
    assert min(settlement.overage_units, settlement.released_units) == 0
    assert settlement.overage_units >= 0
    assert settlement.released_units >= 0
    assert (settlement.overage_units > 0) == (images > reserved_images and unit_price > 0)


@pytest.mark.parametrize(
    ("images", "complete", "client_gone", "outcome", "charged"),
    [
        (0, True, False, Outcome.DELIVERED, 11),
        (0, True, True, Outcome.ABANDONED, 11),
        (0, False, False, Outcome.FAILED, 0),
        (1, True, False, Outcome.DELIVERED, 5_000),
    ],
)
def test_an_answer_without_an_image_is_charged_its_tokens(
    images: int, outcome: Outcome, charged: int, *, complete: bool, client_gone: bool
) -> None:
    delivery = Delivery(Terms(text_multiplier=Decimal("1.5")), images=images, provider_usage=b'{"total_tokens":7}')
    delivery.end(complete=complete, client_gone=client_gone)
    settlement = settle(make_reservation(make_quote(1, 5_000)), delivery)
    assert (delivery.outcome, settlement.charged_units) == (outcome, charged)


@pytest.mark.parametrize(
    ("sizes", "images", "edge", "charged", "overage"),
    [
        (((1024, 1024), (64, 3840)), 2, 3_840, 17_500, 7_500),
        (((4096, 4096), None), 2, 3_840, 17_500, 7_500),
        ((None, None), 2, 3_840, 10_000, 0),
        (((4096, 4096),), 1, 0, 5_000, 0),
        (((1024, 1024),), 3, 3_840, 15_000, 5_000),
        ((), 0, 3_840, 0, 0),
    ],
)
def test_what_is_charged_may_go_by_the_size_that_came(
    sizes: tuple[tuple[int, int] | None, ...], images: int, edge: int, charged: int, overage: int
) -> None:
    prices = DeliveredPrices(5_000, 12_500, edge, Tier.STANDARD)
    delivery = Delivery(images=images, sizes=sizes, terms=Terms(prices))
    delivery.end(complete=True)
    settlement = settle(make_reservation(make_quote(2, 5_000)), delivery)
    assert (settlement.charged_units, settlement.overage_units) == (charged, overage)
    assert settlement.released_units == 10_000 - charged + overage


edges = st.integers(1, 9_000)


@given(
    sizes=st.lists(st.none() | st.tuples(edges, edges), max_size=20).map(tuple),
    repeated=st.sampled_from([1, 1, 30, 60]),
    unlisted=st.sampled_from([0, 0, 1, 9_000]),
    prices=st.tuples(st.integers(0, 10**9), st.integers(0, 10**9)),
    edge=st.sampled_from([0, 3_840]) | edges,
    requested=st.sampled_from(Tier),
    whole=st.booleans(),
)
def test_the_tiers_of_what_came_add_up_to_what_is_charged(
    sizes: tuple[tuple[int, int] | None, ...],
    repeated: int,
    unlisted: int,
    prices: tuple[int, int],
    edge: int,
    requested: Tier,
    *,
    whole: bool,
) -> None:
    sizes = (sizes * repeated)[:SIZES_LIMIT]
    images = len(sizes) + unlisted
    delivery = Delivery(images=images, sizes=sizes, terms=Terms(DeliveredPrices(*prices, edge, requested)))
    delivery.end(complete=whole)
    asked_price = prices[1] if requested is Tier.FOUR_K else prices[0]
    settlement = settle(make_reservation(Quote(1, asked_price, asked_price, requested)), delivery)
    charged = settlement.charged_by
    assert settlement.charged_units == sum(each.images * each.unit_price for each in charged)
    assert sum(each.images for each in charged) == images
    assert len({each.tier for each in charged}) == len(charged)
    by_hand = [
        asked_price if not edge or size is None else prices[max(size) >= edge] for size in [*sizes, *[None] * unlisted]
    ]
    assert settlement.charged_units == sum(by_hand)


def test_what_is_charged_by_what_was_asked_for_has_no_tiers() -> None:
    delivery = Delivery(images=2, sizes=((4_096, 4_096), None))
    delivery.end(complete=True)
    settlement = settle(make_reservation(make_quote(2, 5_000)), delivery)
    assert (settlement.charged_by, settlement.charged_units) == ((), 10_000)


def test_images_without_a_size_are_of_the_tier_that_was_asked_for() -> None:
    prices = DeliveredPrices(5_000, 12_500, 3_840, Tier.FOUR_K)
    assert prices.charges(((1_024, 1_024), None, (3_840, 1)), 5) == (
        TierCharge(Tier.STANDARD, 1, 5_000),
        TierCharge(Tier.FOUR_K, 4, 12_500),
    )
