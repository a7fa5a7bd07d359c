from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from proxy.domain.billing.pricing import DeliveredPrices, Quote, Terms, Tier
from proxy.domain.billing.settlement import Delivery, Outcome, Reservation, settle
from proxy.domain.limits import QUOTAS, QuotaUsage
from proxy.domain.money import Money
from proxy.telemetry.metrics import Metrics
from proxy.telemetry.observation import Observation

MODELS = ("acme/image-1", "acme/image-2")

PROMISED: dict[str, set[str]] = {
    "lightmeter_requests_total": {"endpoint", "model", "outcome"},
    "lightmeter_request_duration_seconds_bucket": {"endpoint", "model", "le"},
    "lightmeter_overhead_seconds_bucket": {"le"},
    "lightmeter_upstream_duration_seconds_bucket": {"provider", "model", "le"},
    "lightmeter_upstream_requests_total": {"provider", "model", "status"},
    "lightmeter_images_total": {"model", "tier"},
    "lightmeter_quota_units_total": {"model", "state"},
    "lightmeter_rejections_total": {"reason"},
    "lightmeter_in_flight_requests": {"model"},
    "lightmeter_store_duration_seconds_bucket": {"operation", "le"},
    "lightmeter_store_errors_total": {"operation"},
    "lightmeter_journal_pending_settlements": set(),
    "lightmeter_journal_parked_settlements": set(),
    "lightmeter_expired_leases_total": set(),
    "lightmeter_response_bytes_total": {"model"},
    "lightmeter_build_info": {"version"},
}
TEAM_FAMILIES: dict[str, set[str]] = {
    "lightmeter_team_charged_units_total": {"team", "model"},
    "lightmeter_team_images_total": {"team", "model"},
    "lightmeter_team_quota_units": {"team", "limit", "state"},
}

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def samples(metrics: Metrics) -> Samples:
    families = text_string_to_metric_families(metrics.render().decode())
    return {(one.name, frozenset(one.labels.items())): one.value for family in families for one in family.samples}


def test_what_a_unit_is_worth_is_told_where_it_is_set() -> None:
    assert value(samples(Metrics(money=Money(Decimal(100_000)))), "lightmeter_units_per_usd") == 100_000
    assert value(samples(Metrics()), "lightmeter_units_per_usd") is None


def test_how_far_each_shipper_is_behind() -> None:
    metrics = Metrics()
    assert value(samples(metrics), "lightmeter_ledger_ship_lag_seconds", shipper="books") is None
    metrics.ship_lag("books", 12.5)
    assert value(samples(metrics), "lightmeter_ledger_ship_lag_seconds", shipper="books") == 12.5


def value(found: Samples, name: str, **labels: str) -> float | None:
    return found.get((name, frozenset(labels.items())))


def reservation(team: str = "acme", model: str = MODELS[0], images: int = 1) -> Reservation:
    quote = Quote(images=images, unit_price=5_000, units=images * 5_000, tier=Tier.STANDARD)
    return Reservation("req_1", team, f"{team}_k", "/v1/images/generations", model, quote, 0, None)


def serve(metrics: Metrics, held: Reservation, images: int = 1) -> None:
    metrics.reserved(held)
    metrics.settled(settle(held, Delivery(outcome=Outcome.DELIVERED, images=images)))


def quotas(posted: int, reserved: int = 0, **limits: int) -> Mapping[str, QuotaUsage]:
    return {name: QuotaUsage(limits.get(name), posted, reserved) for name in QUOTAS}


@pytest.mark.parametrize("label_teams", [0, 5])
def test_every_promised_metric_is_there_with_its_labels(label_teams: int) -> None:
    metrics = Metrics(label_teams=label_teams)
    serve(metrics, reservation())
    answered = Observation("req_1", "/v1/images/generations", model=MODELS[0], outcome="delivered")
    answered.provider, answered.provider_status, answered.response_bytes = "north", 200, 100
    metrics.observed(answered, answered.started + 1)
    metrics.observed(Observation("req_2", "/v1/images/generations", error="invalid_api_key"), answered.started + 1)
    metrics.observe_store("admit", 0.001)
    if metrics.teams is not None:
        metrics.teams.show({"acme": quotas(1)})
    found = [(name, {label for label, _ in labels}) for name, labels in samples(metrics)]
    for name, labels in {**PROMISED, **(TEAM_FAMILIES if label_teams else {})}.items():
        assert [given for each, given in found if each == name], name
        assert all(given == labels for each, given in found if each == name), name
    if not label_teams:
        assert not [name for name, _ in found if name.startswith("lightmeter_team")]


@given(st.lists(st.tuples(st.booleans(), st.sampled_from(MODELS), st.integers(1, 10), st.integers(0, 12))))
def test_what_was_reserved_is_charged_released_or_held(steps: list[tuple[bool, str, int, int]]) -> None:
    metrics = Metrics()
    open_ones: list[Reservation] = []
    for begin, model, asked, made in steps:
        if begin or not open_ones:
            metrics.reserved(held := reservation(model=model, images=asked))
            open_ones.append(held)
        else:
            metrics.settled(settle(open_ones.pop(0), Delivery(outcome=Outcome.DELIVERED, images=made)))
    found = samples(metrics)
    for model in MODELS:
        units = {
            state: value(found, "lightmeter_quota_units_total", model=model, state=state) or 0
            for state in ("reserved", "charged", "overage", "released")
        }
        held_units = value(found, "lightmeter_quota_units_held", model=model) or 0
        assert units["reserved"] == units["charged"] - units["overage"] + units["released"] + held_units
        assert held_units == sum(each.quote.units for each in open_ones if each.model == model)


@pytest.mark.parametrize(
    ("requested", "edge", "standard", "four_k"),
    [(None, 3_840, 4, None), (Tier.STANDARD, 3_840, 3, 1), (Tier.FOUR_K, 3_840, 1, 3), (Tier.FOUR_K, 0, None, 4)],
)
def test_an_image_counts_under_the_tier_that_it_was_charged_by(
    requested: Tier | None, edge: int, standard: int | None, four_k: int | None
) -> None:
    metrics = Metrics()
    metrics.reserved(held := reservation(images=4))
    prices = None if requested is None else DeliveredPrices(5_000, 12_500, edge, requested)
    delivery = Delivery(Terms(prices), images=4, sizes=((1_024, 1_024), (4_096, 4_096), None))
    delivery.end(complete=True)
    metrics.settled(settle(held, delivery))
    found = samples(metrics)
    told = [value(found, "lightmeter_images_total", model=MODELS[0], tier=tier) for tier in ("standard", "4k")]
    assert told == [standard, four_k]


def test_an_error_of_the_store_is_counted_from_nought() -> None:
    metrics = Metrics()
    assert value(samples(metrics), "lightmeter_store_errors_total", operation="admit") == 0
    metrics.store_failed("admit")
    assert value(samples(metrics), "lightmeter_store_errors_total", operation="admit") == 1


# --- Teams ------------------------------------------------------------------------------------------------------------


def test_a_teams_limit_is_there_only_where_there_is_one() -> None:
    metrics = Metrics(label_teams=2)
    assert metrics.teams is not None
    metrics.teams.show({"acme": quotas(30, 5, quota_units_per_day=100)})
    found = samples(metrics)
    told = {
        (dict(labels)["limit"], dict(labels)["state"]): units
        for (name, labels), units in found.items()
        if name == "lightmeter_team_quota_units"
    }
    assert told == {
        **{(name, "posted"): 30 for name in QUOTAS},
        **{(name, "reserved"): 5 for name in QUOTAS},
        ("quota_units_per_day", "limit"): 100,
    }
    metrics.teams.show({"acme": quotas(40)})
    assert value(samples(metrics), "lightmeter_team_quota_units", team="acme", limit=QUOTAS[1], state="limit") is None


def test_the_first_teams_by_id_are_labels_and_all_others_are_one() -> None:
    metrics = Metrics(label_teams=2)
    assert metrics.teams is not None
    metrics.teams.show({team: quotas(0) for team in ("cc", "aa", "bb", "dd")})
    for team in ("aa", "bb", "cc", "dd", "unheard-of"):
        serve(metrics, reservation(team=team), images=2)
    found = samples(metrics)
    for name, each in (("lightmeter_team_images_total", 2), ("lightmeter_team_charged_units_total", 10_000)):
        assert {dict(labels)["team"]: counted for (family, labels), counted in found.items() if family == name} == {
            "aa": each,
            "bb": each,
            "other": 3 * each,
        }
    assert {dict(labels)["team"] for (family, labels) in found if family == "lightmeter_team_quota_units"} == {
        "aa",
        "bb",
    }


def test_teams_that_come_and_go_are_never_more_labels_than_allowed() -> None:
    metrics = Metrics(label_teams=3)
    assert metrics.teams is not None
    for number in range(50, 0, -1):
        metrics.teams.show({f"team-{each:03}": quotas(0) for each in range(number, 51)})
        for each in range(1, 51):
            serve(metrics, reservation(team=f"team-{each:03}"))
        teams = {dict(labels)["team"] for family, labels in samples(metrics) if family.startswith("lightmeter_team")}
        assert len(teams - {"other"}) <= 3
        assert f"team-{number:03}" in teams
