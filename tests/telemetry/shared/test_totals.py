from __future__ import annotations

from prometheus_client import CollectorRegistry, generate_latest

from proxy.machine.segment import Segment
from proxy.telemetry.metrics import Metrics
from proxy.telemetry.shared.totals import Gone, TotalsCollector
from proxy.telemetry.shared.values import SharedNumbers
from proxy.telemetry.tallies import Families


class Worker:
    """The metrics of one process."""

    def __init__(self) -> None:
        self.segment = Segment.create(2**20)
        make = Families("", SharedNumbers(self.segment))
        self.requests = make.counter("requests", "Requests", "model")
        self.held = make.gauge("open", "At work")
        self.up = make.gauge("up", "Whether it is", combine="min")
        self.state = make.gauge("state", "The worst", "place", combine="max")
        self.seconds = make.timing("seconds", "Time", (0.5, 1), "model")


def rendered(*segments: Segment) -> list[str]:
    collector, registry = TotalsCollector(), CollectorRegistry(auto_describe=False)
    collector.segments = list(segments)
    registry.register(collector)
    return [line for line in generate_latest(registry).decode().splitlines() if not line.startswith("#")]


def worker(requests: int, *, up: int, state: int, seconds: float) -> Worker:
    made = Worker()
    made.requests.values[("a",)] += requests
    made.held.values[()] += requests
    made.up.values[()] = up
    made.state.values[("here",)] = state
    made.seconds.observe(("a",), seconds)
    return made


def test_counters_and_histograms_add_up_and_gauges_as_each_of_them_means() -> None:
    one, other = worker(2, up=1, state=2, seconds=0.25), worker(3, up=0, state=1, seconds=0.75)
    other.requests.values[("b",)] += 1
    assert rendered(one.segment, other.segment) == [
        "open 5.0",
        "up 0.0",
        'requests_total{model="a"} 5.0',
        'requests_total{model="b"} 1.0',
        'state{place="here"} 2.0',
        'seconds_bucket{le="0.5",model="a"} 1.0',
        'seconds_bucket{le="1.0",model="a"} 2.0',
        'seconds_bucket{le="+Inf",model="a"} 2.0',
        'seconds_count{model="a"} 2.0',
        'seconds_sum{model="a"} 1.0',
    ]


def test_of_one_that_is_gone_what_was_counted_stays_and_gauges_go() -> None:
    gone, lives = Gone(Segment.create(2**20)), worker(1, up=1, state=0, seconds=0.25)
    for _ in range(3):
        gone.add(worker(2, up=0, state=2, seconds=0.75).segment)
    # A supervisor that has become another program goes on with the same memory.
    gone = Gone(Segment(gone.segment.descriptor))
    gone.add(worker(2, up=0, state=2, seconds=0.75).segment)
    assert set(rendered(lives.segment, gone.segment)) == {
        "open 1.0",
        "up 1.0",
        'requests_total{model="a"} 9.0',
        'state{place="here"} 0.0',
        'seconds_bucket{le="0.5",model="a"} 1.0',
        'seconds_bucket{le="1.0",model="a"} 5.0',
        'seconds_bucket{le="+Inf",model="a"} 5.0',
        'seconds_count{model="a"} 5.0',
        'seconds_sum{model="a"} 3.25',
    }


def test_what_one_that_is_gone_had_held_counts_as_released() -> None:
    segment = Segment.create(2**20)
    metrics = Metrics(keeper=SharedNumbers(segment))
    metrics._units.values["a", "reserved"] += 15_000
    metrics._units.values["a", "charged"] += 5_000
    metrics._held.values[("a",)] += 10_000
    gone = Gone(Segment.create(2**20))
    gone.add(segment)
    lines = rendered(gone.segment)
    assert 'lightmeter_quota_units_total{model="a",state="released"} 10000.0' in lines
    assert not [line for line in lines if "held" in line]


def test_a_series_that_is_left_out_comes_back_with_its_next_number() -> None:
    made = worker(1, up=1, state=2, seconds=1)
    made.state.values.clear()
    del made.requests.values[("a",)]
    assert not [line for line in rendered(made.segment) if line.startswith(("state", "requests"))]
    made.state.values[("here",)] = 1
    made.requests.values[("a",)] += 1
    lines = rendered(made.segment)
    assert 'state{place="here"} 1.0' in lines
    assert 'requests_total{model="a"} 1.0' in lines


def test_a_full_memory_leaves_new_series_out_and_breaks_nothing() -> None:
    segment = Segment.create(4_096)
    make = Families("", SharedNumbers(segment))
    counter = make.counter("requests", "Requests", "model")
    for number in range(200):
        counter.values[(str(number),)] += 1
    assert counter.values[("199",)] == 1
    assert 10 < len(rendered(segment)) < 100
