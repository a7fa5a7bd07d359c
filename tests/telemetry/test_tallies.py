from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from proxy.telemetry.tallies import Families, TallyCollector

BOUNDS_S = (0.1, 0.5, 1.0)
LABELS = st.sampled_from(["a", "b", 'with "quotes" and \\'])
# Sums of these are exact in whatever order they are made.
SECONDS = st.integers(0, 24).map(lambda eighths: eighths / 8) | st.sampled_from(BOUNDS_S)


def rendered(families: Families) -> bytes:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(TallyCollector(families.parts))
    return without_created(registry)


def without_created(registry: CollectorRegistry) -> bytes:
    """As Prometheus reads it, without the library's note of when each counter was made."""
    text = generate_latest(registry)
    return b"".join(line for line in text.splitlines(keepends=True) if b"_created" not in line)


@given(st.lists(st.tuples(LABELS, LABELS, st.integers(0, 100)), max_size=20))
def test_a_counter_says_what_the_librarys_would(steps: list[tuple[str, str, int]]) -> None:
    families, registry = Families("lightmeter_"), CollectorRegistry()
    ours = families.counter("images", "Images.", "model", "tier")
    theirs = Counter("lightmeter_images", "Images.", ["model", "tier"], registry=registry)
    for model, tier, images in steps:
        ours.values[model, tier] += images
        theirs.labels(model, tier).inc(images)
    assert rendered(families) == without_created(registry)


@given(st.lists(st.tuples(LABELS, st.integers(-100, 100)), max_size=20))
def test_a_gauge_says_what_the_librarys_would(steps: list[tuple[str, int]]) -> None:
    families, registry = Families("lightmeter_"), CollectorRegistry()
    ours = families.gauge("in_flight", "Requests.", "model")
    theirs = Gauge("lightmeter_in_flight", "Requests.", ["model"], registry=registry)
    for model, change in steps:
        ours.values[(model,)] += change
        theirs.labels(model).inc(change)
    assert rendered(families) == without_created(registry)


@given(st.lists(st.tuples(LABELS, SECONDS), max_size=20))
@pytest.mark.filterwarnings("ignore")
def test_a_histogram_says_what_the_librarys_would(steps: list[tuple[str, float]]) -> None:
    """A length that is just a bound counts there, and every bucket holds all that are shorter."""
    families, registry = Families("lightmeter_"), CollectorRegistry()
    ours = families.timing("duration_seconds", "Time.", BOUNDS_S, "model")
    theirs = Histogram("lightmeter_duration_seconds", "Time.", ["model"], buckets=BOUNDS_S, registry=registry)
    for model, seconds in steps:
        ours.observe((model,), seconds)
        theirs.labels(model).observe(seconds)
    assert numbers(rendered(families)) == numbers(without_created(registry))


def numbers(text: bytes) -> list[tuple[bytes, Any]]:
    """Each line's name and number: a sum may differ in its last digit."""
    lines = [line for line in text.splitlines() if not line.startswith(b"#")]
    return [(line.rpartition(b" ")[0], pytest.approx(float(line.rpartition(b" ")[2]))) for line in lines]


def test_a_number_without_labels_is_there_from_the_start_and_one_with_labels_from_its_first_use() -> None:
    families = Families("lightmeter_")
    families.counter("expired_leases", "Leases.")
    families.gauge("up", "Up.")
    labelled = families.counter("images", "Images.", "model")
    text = rendered(families).decode()
    assert "lightmeter_expired_leases_total 0.0" in text
    assert "lightmeter_up 0.0" in text
    assert "lightmeter_images_total{" not in text
    labelled.values[("a",)] += 0
    assert 'lightmeter_images_total{model="a"} 0.0' in rendered(families).decode()


def test_the_registry_is_told_of_all_of_them_in_the_order_in_which_they_were_made() -> None:
    families = Families("lightmeter_")
    families.gauge("c", "C.")
    families.timing("a_seconds", "A.", BOUNDS_S)
    families.counter("b", "B.")
    collected = list(TallyCollector(families.parts).collect())
    assert [(one.name, one.documentation, one.type) for one in collected] == [
        ("lightmeter_c", "C.", "gauge"),
        ("lightmeter_a_seconds", "A.", "histogram"),
        ("lightmeter_b", "B.", "counter"),
    ]


def test_a_scrape_changes_nothing() -> None:
    families = Families("lightmeter_")
    families.timing("a_seconds", "A.", BOUNDS_S, "model").observe(("m",), 0.3)
    families.counter("b", "B.", "model").values[("m",)] += 2
    assert rendered(families) == rendered(families)
