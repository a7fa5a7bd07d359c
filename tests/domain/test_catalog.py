from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.domain.catalog import BASE_UNITS, BASE_UNITS_4K, UNITS_LIMIT, Catalog, Model, unit_price
from proxy.domain.errors import ModelNotFound
from proxy.domain.requests.image import KNOWN_PARAMETERS
from tests.domain.samples import make_model

multipliers = st.builds(
    lambda digits, places: Decimal(digits).scaleb(-places),
    st.integers(0, 10**18),
    st.integers(12, 24),
)

# --- The price of one image -------------------------------------------------------------------------------------------


def test_the_bases_are_those_of_the_public_page() -> None:
    assert (BASE_UNITS, BASE_UNITS_4K, UNITS_LIMIT) == (5_000, 12_500, 2**53)


@given(multipliers, st.sampled_from([BASE_UNITS, BASE_UNITS_4K]))
@example(Decimal("0.3333"), BASE_UNITS)
@example(Decimal(1_000_000), BASE_UNITS_4K)
@example(Decimal("1E-12"), BASE_UNITS)
@example(Decimal("0E-12"), BASE_UNITS)
def test_the_unit_price_is_the_exact_product_rounded_up(multiplier: Decimal, base_units: int) -> None:
    assert unit_price(base_units, multiplier) == math.ceil(Fraction(multiplier) * base_units)


@pytest.mark.parametrize(
    ("multiplier", "units"),
    [
        ("1.1", 5_500),
        ("0.3333", 1_667),
        ("1." + "0" * 20 + "1", 5_001),
        ("1." + "0" * 40 + "1", 5_001),
        ("0." + "9" * 40, 5_000),
        ("0." + "0" * 40 + "1", 1),
    ],
)
def test_the_unit_price_is_exact_for_many_digits(multiplier: str, units: int) -> None:
    assert unit_price(BASE_UNITS, Decimal(multiplier)) == units


@given(multipliers, multipliers, st.sampled_from([BASE_UNITS, BASE_UNITS_4K]))
def test_a_greater_multiplier_never_makes_a_lower_price(one: Decimal, other: Decimal, base_units: int) -> None:
    low, high = sorted((one, other))
    assert unit_price(base_units, low) <= unit_price(base_units, high)


@given(multipliers)
def test_4k_never_costs_less_than_standard_and_only_a_multiplier_of_zero_is_free(multiplier: Decimal) -> None:
    assert unit_price(BASE_UNITS, multiplier) <= unit_price(BASE_UNITS_4K, multiplier)
    assert (unit_price(BASE_UNITS, multiplier) == 0) == (multiplier == 0)


# --- The models on offer ----------------------------------------------------------------------------------------------


def catalog_of(*ids: str, default_model: str | None = None) -> Catalog:
    return Catalog([make_model(id=model_id) for model_id in ids], default_model)


def ids_of(catalog: Catalog) -> list[str]:
    return [model.id for model in catalog.all()]


def test_models_are_found_by_their_exact_id_only() -> None:
    catalog = catalog_of("acme/image-1", "acme/image-2")
    assert catalog.get("acme/image-2").id == "acme/image-2"
    for other in ("acme/image-3", "acme/image", "acme/image-1 ", "ACME/image-1", "image-1", ""):
        with pytest.raises(ModelNotFound) as caught:
            catalog.get(other)
        assert (caught.value.wire_status, caught.value.param) == (404, "model")
        assert f"'{other}'" in caught.value.message


def test_a_long_id_is_not_given_back_whole() -> None:
    with pytest.raises(ModelNotFound) as caught:
        catalog_of().get("x" * 10_000)
    assert len(caught.value.message) < 300


def test_models_are_listed_in_the_order_of_the_configuration() -> None:
    assert ids_of(catalog_of("b", "c", "a")) == ["b", "c", "a"]


def test_a_catalogue_is_replaced_as_a_whole() -> None:
    catalog = catalog_of("old", default_model="old")
    catalog.replace(catalog_of("new", "newer", default_model="newer"))
    assert (ids_of(catalog), catalog.default_model) == (["new", "newer"], "newer")
    with pytest.raises(ModelNotFound):
        catalog.get("old")


@pytest.mark.parametrize(("model_id", "owner"), [("acme/image-1", "acme"), ("a/b/c", "a"), ("image-1", "image-1")])
def test_the_owner_is_what_stands_before_the_slash(model_id: str, owner: str) -> None:
    assert make_model(id=model_id).owned_by == owner


def test_a_model_has_the_defaults_of_the_public_page() -> None:
    model = Model("acme/image-1", "acme", "image-1", Decimal(1), KNOWN_PARAMETERS)
    assert (model.default_n, model.max_n, model.four_k_long_edge) == (1, 10, 3_840)
