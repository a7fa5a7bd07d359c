"""The ledger's entry of images that are charged by the size that they came in explains its charge."""

from __future__ import annotations

from typing import Any

import orjson
from hypothesis import given
from hypothesis import strategies as st

from proxy.domain.billing.pricing import DeliveredPrices, Quote, Terms, Tier
from proxy.domain.billing.settlement import Delivery, Settlement, settle
from proxy.domain.parsing.image_header import SIZES_LIMIT, Size
from proxy.metering.journal.records import Posting, read_records, write_record
from proxy.metering.ledger.pages import LedgerFilter
from proxy.metering.redis_store.facts import SIZES_KEPT, settlement_facts
from tests.domain.samples import make_reservation
from tests.metering.conftest import Bench

UHD, HD = (3_840, 2_160), (1_024, 1_024)
FACTS_BYTES_LIMIT = 4_096


def settlement_of(
    sizes: tuple[Size | None, ...], images: int, requested: Tier, prices: DeliveredPrices | None
) -> Settlement:
    delivery = Delivery(images=images, sizes=sizes, terms=Terms(prices))
    delivery.end(complete=True)
    unit_price = 12_500 if requested is Tier.FOUR_K else 5_000
    return settle(make_reservation(Quote(1, unit_price, unit_price, requested)), delivery)


def charge_of(facts: dict[str, Any]) -> int:
    return sum(each["images"] * each["unit_price"] for each in facts["charged_by"].values())


@given(
    sizes=st.lists(st.sampled_from([None, HD, UHD]), max_size=5),
    repeated=st.integers(1, 250),
    unlisted=st.sampled_from([0, 0, 1, 9_000]),
    requested=st.sampled_from(Tier),
    edge=st.sampled_from([0, 1_024, 3_840]),
)
def test_its_tiers_add_up_to_the_charge_however_many_images_came(
    sizes: list[Size | None], repeated: int, unlisted: int, requested: Tier, edge: int
) -> None:
    all_sizes = tuple(sizes * repeated)[:SIZES_LIMIT]
    images = len(all_sizes) + unlisted
    settlement = settlement_of(all_sizes, images, requested, DeliveredPrices(5_000, 12_500, edge, requested))
    written = settlement_facts(settlement)
    facts = orjson.loads(written)
    assert len(written) < FACTS_BYTES_LIMIT
    assert ("charged_by" in facts) == (images > 0)
    if images:
        assert charge_of(facts) == settlement.charged_units
        assert sum(each["images"] for each in facts["charged_by"].values()) == images
    if any(all_sizes):
        assert len(facts["sizes"]) == min(SIZES_KEPT, len(all_sizes))
        assert len(facts["sizes"]) + facts.get("sizes_omitted", 0) == images
        assert facts.get("sizes_omitted") != 0
    # What waits in the journal tells the same when it is posted.
    ((posting,), damaged) = read_records(write_record(Posting(settlement)))
    assert isinstance(posting, Posting)
    assert (settlement_facts(posting.settlement), damaged) == (written, 0)
    assert posting.settlement.charged_units == settlement.charged_units


def test_that_of_images_charged_as_asked_for_is_as_it_was() -> None:
    facts = orjson.loads(settlement_facts(settlement_of((HD, UHD), 2, Tier.STANDARD, None)))
    assert facts["sizes"] == ["1024x1024", "3840x2160"]
    assert not {"charged_by", "sizes_omitted"} & facts.keys()


async def test_the_store_keeps_it_and_the_books_are_right(bench: Bench) -> None:
    key = await bench.make_key()
    reservation = await bench.admit(key, "req_1", 5_000, images=2)
    prices = DeliveredPrices(5_000, 12_500, 3_840, Tier.STANDARD)
    delivery = Delivery(images=151, sizes=(HD, None, *[UHD] * 149), terms=Terms(prices))
    delivery.end(complete=True)
    await bench.store.settle(settle(reservation, delivery))
    (entry,) = (await bench.ledger.list_entries(LedgerFilter(team="acme"), cursor=None, limit=10)).items
    assert entry.facts["charged_by"] == {
        "standard": {"images": 2, "unit_price": 5_000},
        "4k": {"images": 149, "unit_price": 12_500},
    }
    assert charge_of(entry.facts) == entry.facts["charged"] == 2 * 5_000 + 149 * 12_500
    assert (len(entry.facts["sizes"]), entry.facts["sizes_omitted"]) == (100, 51)
    await bench.check_books(key)
