from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.domain.billing.pricing import Quote, Tier, price, tier_of
from proxy.domain.billing.settlement import Delivery, settle
from proxy.domain.requests.image import ImageRequest, parse_image_request
from tests.domain.samples import contract_rows, make_model, make_reservation

multipliers = st.decimals(0, 1_000_000, places=4)
counts = st.integers(1, 1_000)
sizes = st.sampled_from([None, "", "1024x1024", "3840x2160", "4K", " 4k", "auto"])


def request_for(n: int | None = None, size: str | None = None, image_size: str | None = None) -> ImageRequest:
    return ImageRequest(model="acme/image-1", prompt="a cube", n=n, size=size, image_size=image_size)


@pytest.mark.parametrize("row", contract_rows("quota-vectors.json", "vectors"), ids=lambda row: row["name"])
def test_the_contract_holds(row: dict[str, Any]) -> None:
    request = parse_image_request(json.dumps(row["request"]).encode())
    quote = price(request, make_model(row["token_multiplier"]))
    assert quote.units == row["reserved_units"]
    settlement = settle(make_reservation(quote), Delivery(images=row["delivered_images"]))
    assert settlement.charged_units == row["charged_units"]
    assert settlement.overage_units == max(0, row["charged_units"] - row["reserved_units"])
    assert settlement.released_units == max(0, row["reserved_units"] - row["charged_units"])


# --- The quote --------------------------------------------------------------------------------------------------------


@given(counts, multipliers, sizes, sizes)
def test_units_are_images_times_the_unit_price_of_their_tier(
    n: int, multiplier: Decimal, size: str | None, image_size: str | None
) -> None:
    model = make_model(multiplier)
    quote = price(request_for(n, size, image_size), model)
    assert (quote.images, quote.units) == (n, n * quote.unit_price)
    assert quote.unit_price == (model.unit_price_4k if quote.tier is Tier.FOUR_K else model.unit_price)


@given(counts, counts, multipliers, multipliers, sizes)
def test_more_images_or_a_greater_multiplier_never_cost_less(
    n: int, other_n: int, multiplier: Decimal, other_multiplier: Decimal, size: str | None
) -> None:
    low, high = sorted((multiplier, other_multiplier))
    few, many = sorted((n, other_n))
    units = price(request_for(few, size), make_model(low)).units
    assert units <= price(request_for(many, size), make_model(low)).units
    assert units <= price(request_for(few, size), make_model(high)).units
    assert units <= price(request_for(few, "4K"), make_model(low)).units


@pytest.mark.parametrize("default_n", [1, 4])
def test_a_request_that_leaves_n_to_the_provider_reserves_the_models_default(default_n: int) -> None:
    model = make_model(default_n=default_n)
    assert price(request_for(), model) == Quote(default_n, 5_000, default_n * 5_000, Tier.STANDARD)
    assert price(request_for(n=2), model) == Quote(2, 5_000, 10_000, Tier.STANDARD)


# --- The tier ---------------------------------------------------------------------------------------------------------

FOUR_K = [
    "4K", "4k", " 4K", "4K ", "\t4k\n", "4 k", "\u00a04K\u2003", "4\u212a",
    "3840x2160", "2160x3840", "3840X2160", "3840×2160", " 3840 x 2160 ", "3840x1", "1x3840", "3841x1", "03840x0001",
    "100000x100000", "0x3840", "\u0663\u0668\u0664\u0660x1", "9" * 400 + "x1",
]  # fmt: skip
STANDARD = [
    "", " ", "auto", "1K", "2K", "0.5K", "40K", "14K", "4KK", "4K1", "4", "K", "K4", "4.0K", "UHD", "3840",
    "1024x1024", "3839x3839", "3824x2144", "3840x", "x3840", "3840x2160x1", "-3840x2160", "3840.5x2160", "3840*2160",
    "0x0", "1e9x1", "3 8 3 9x1",
]  # fmt: skip


@pytest.mark.parametrize(
    ("size", "tier"),
    [(size, Tier.FOUR_K) for size in FOUR_K] + [(size, Tier.STANDARD) for size in STANDARD],
    ids=lambda value: ascii(value)[:40],
)
def test_4k_is_the_word_or_a_long_edge_whatever_its_case_and_blanks(size: str, tier: Tier) -> None:
    assert tier_of(request_for(size=size), 3_840) is tier
    assert tier_of(request_for(image_size=size), 3_840) is tier


@given(sizes, sizes, st.sampled_from([0, 1_024, 3_840]))
def test_the_dearer_of_both_sizes_counts(size: str | None, image_size: str | None, long_edge: int) -> None:
    alone = {tier_of(request_for(size=one), long_edge) for one in (size, image_size)}
    both = tier_of(request_for(size=size, image_size=image_size), long_edge)
    assert both is (Tier.FOUR_K if Tier.FOUR_K in alone else Tier.STANDARD)


@given(st.integers(1, 10_000), st.integers(1, 10_000), st.integers(1, 10_000))
def test_a_picture_is_4k_from_the_models_long_edge_on(width: int, height: int, long_edge: int) -> None:
    tier = tier_of(request_for(size=f"{width}x{height}"), long_edge)
    assert (tier is Tier.FOUR_K) == (max(width, height) >= long_edge)


@pytest.mark.parametrize(
    ("size", "tier"),
    [("3840x2160", Tier.STANDARD), ("99999x99999", Tier.STANDARD), ("0x0", Tier.STANDARD), ("4K", Tier.FOUR_K)],
)
def test_a_long_edge_of_0_leaves_only_the_word(size: str, tier: Tier) -> None:
    assert tier_of(request_for(size=size), 0) is tier
    assert price(request_for(size=size), make_model(four_k_long_edge=0)).tier is tier
