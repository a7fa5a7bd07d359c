from __future__ import annotations

import pytest

from proxy.domain.catalog import Alias, Catalog
from proxy.domain.errors import ModelNotFound
from proxy.domain.retirement import Retirement
from tests.domain.samples import make_model

MIDNIGHT_S = 1_796_083_200
ENDS = Retirement("2026-12-01", MIDNIGHT_S, "acme/image-2")


def catalog_with(**retirements: Retirement) -> Catalog:
    models = [make_model(id="one"), make_model(id="two")]
    return Catalog(models, aliases=[Alias("latest", "one")], retirements=retirements)


def test_the_day_begins_at_midnight_in_utc() -> None:
    assert not ENDS.has_come(MIDNIGHT_S - 0.001)
    assert ENDS.has_come(MIDNIGHT_S)
    assert ENDS.has_come(MIDNIGHT_S + 10**9)


@pytest.mark.parametrize(
    ("retirement", "at_s", "told"),
    [
        (ENDS, 0, "The model 'x' retires on 2026-12-01, and is refused from then on; use 'acme/image-2' instead."),
        (ENDS, MIDNIGHT_S, "The model 'x' was retired on 2026-12-01; use 'acme/image-2' instead."),
        (Retirement("2026-12-01", MIDNIGHT_S), MIDNIGHT_S, "The model 'x' was retired on 2026-12-01."),
    ],
)
def test_the_day_and_what_to_use_instead_are_told(retirement: Retirement, at_s: float, told: str) -> None:
    assert retirement.tell("x", at_s) == told


def test_from_that_day_on_a_model_is_refused_by_all_its_names() -> None:
    catalog = catalog_with(one=ENDS)
    for name in ("one", "latest", "two"):
        catalog.check_offered(name, MIDNIGHT_S - 1)
    catalog.check_offered("two", MIDNIGHT_S)
    for name in ("one", "latest"):
        with pytest.raises(ModelNotFound, match="was retired on 2026-12-01; use 'acme/image-2' instead") as caught:
            catalog.check_offered(name, MIDNIGHT_S)
        assert (caught.value.wire_status, caught.value.code, caught.value.param) == (404, "model_not_found", "model")
    assert [name for name, _model in catalog.names(MIDNIGHT_S - 1)] == ["one", "two", "latest"]
    assert [name for name, _model in catalog.names(MIDNIGHT_S)] == ["two"]


def test_an_alias_may_end_before_its_model() -> None:
    later = Retirement("2027-01-01", MIDNIGHT_S + 31 * 86_400)
    for catalog, ends in (
        (catalog_with(latest=ENDS), (None, ENDS)),
        (catalog_with(latest=ENDS, one=later), (later, ENDS)),
        (catalog_with(latest=later, one=ENDS), (ENDS, ENDS)),
    ):
        assert (catalog.retirement("one"), catalog.retirement("latest")) == ends
    catalog_with(latest=ENDS).check_offered("one", MIDNIGHT_S)


def test_retirements_are_replaced_with_the_models() -> None:
    catalog = catalog_with(one=ENDS)
    catalog.replace(catalog_with())
    catalog.check_offered("one", MIDNIGHT_S)
    assert not catalog.retirements
