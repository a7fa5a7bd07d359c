"""What Prometheus sees. Labels are configured names only, so that no client can add a series."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Generic, TypeVar

from prometheus_client import (
    GC_COLLECTOR,
    PLATFORM_COLLECTOR,
    PROCESS_COLLECTOR,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)

from proxy.domain.settlement import Reservation, Settlement
from proxy.telemetry.observation import REJECTED, Observation

M = TypeVar("M", Counter, Gauge, Histogram)

FAST_BUCKETS_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.5)
EVENTS_A_BATCH = 64
"""Events are noted as they happen and counted some at a time: one after the other, they take half the time."""

SLOW_BUCKETS_S = (0.01, 0.05, 0.1, 0.5, 1, 2.5, 5, 10, 20, 40, 60, 120, 300, 600)


def package_version() -> str:
    """The version of the installed distribution."""
    try:
        return version("lightmeter")
    except PackageNotFoundError:
        return "unknown"


class Metrics:
    """Every metric, each updated by the event that it counts. One of these for each process."""

    def __init__(self) -> None:
        """Start at zero, in a registry of its own."""
        self.registry = registry = CollectorRegistry()
        for collector in (PROCESS_COLLECTOR, PLATFORM_COLLECTOR, GC_COLLECTOR):
            registry.register(collector)

        def counter(name: str, text: str, *labels: str) -> _Children[Counter]:
            return _Children(Counter(f"lightmeter_{name}", text, labels, registry=registry))

        def gauge(name: str, text: str, *labels: str) -> _Children[Gauge]:
            return _Children(Gauge(f"lightmeter_{name}", text, labels, registry=registry))

        def histogram(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> _Children[Histogram]:
            return _Children(Histogram(f"lightmeter_{name}", text, labels, registry=registry, buckets=buckets))

        self._requests = counter("requests_total", "Requests that ended, by outcome", "endpoint", "model", "outcome")
        self._rejections = counter("rejections_total", "Requests that were not forwarded, by error code", "reason")
        self._images = counter("images_total", "Images that were generated and charged", "model", "tier")
        self._units = counter("quota_units_total", "Quota units by what became of them", "model", "state")
        self._response_bytes = counter("response_bytes_total", "Bytes of answers sent to clients", "model")
        self._upstream_requests = counter(
            "upstream_requests_total",
            "Requests sent to providers; status is 'none' without an answer",
            "provider",
            "model",
            "status",
        )
        self._in_flight = gauge("in_flight_requests", "Requests that hold a reservation", "model")
        self._held = gauge("quota_units_held", "Quota units reserved and not yet settled by this process", "model")
        self._duration = histogram(
            "request_duration_seconds", "From the first byte to the last", SLOW_BUCKETS_S, "endpoint", "model"
        )
        self._overhead = histogram(
            "overhead_seconds", "Lightmeter's own time: waiting neither for the provider nor the client", FAST_BUCKETS_S
        )
        self._upstream_duration = histogram(
            "upstream_duration_seconds", "Time spent waiting for the provider", SLOW_BUCKETS_S, "provider", "model"
        )
        self._store_duration = histogram(
            "store_duration_seconds", "Time of one operation of the store", FAST_BUCKETS_S, "operation"
        )
        self._store_up = gauge("store_up", "Whether the store answered the last time it was asked")
        self._unsettled = gauge(
            "unsettled_requests", "Settlements that the store has not taken yet and are tried again"
        )
        gauge("build_info", "Always 1; the label is the version", "version").of(package_version()).set(1)
        self._models: dict[str, _OfModel] = {}
        self._events: list[tuple[Callable[..., None], tuple[object, ...]]] = []
        self._store_up.of().set(1)
        self._unsettled.of()

    def reserved(self, reservation: Reservation) -> None:
        """A request was admitted."""
        self._note(self._count_reserved, reservation)

    def settled(self, settlement: Settlement) -> None:
        """A request has ended. ``reserved = charged - overage + released + held`` is true before and after."""
        self._note(self._count_settled, settlement)

    def observed(self, observation: Observation, ended: float) -> None:
        """A request has been answered."""
        self._note(self._count_observed, observation, ended)

    def observe_store(self, operation: str, seconds: float) -> None:
        """The store was asked for something."""
        self._note(self._count_store, operation, seconds)

    def _note(self, count: Callable[..., None], *event: object) -> None:
        self._events.append((count, event))
        if len(self._events) >= EVENTS_A_BATCH:
            self.flush()

    def _count_reserved(self, reservation: Reservation) -> None:
        units = reservation.quote.units
        of_model = self._of_model(reservation.model)
        of_model.reserved.inc(units)
        of_model.held.inc(units)
        of_model.in_flight.inc()

    def _count_settled(self, settlement: Settlement) -> None:
        model, quote = settlement.reservation.model, settlement.reservation.quote
        of_model = self._of_model(model)
        of_model.held.dec(quote.units)
        of_model.in_flight.dec()
        if settlement.charged_units:
            of_model.charged.inc(settlement.charged_units)
        if settlement.released_units:
            of_model.released.inc(settlement.released_units)
        if settlement.overage_units:
            of_model.overage.inc(settlement.overage_units)
        if settlement.delivery.images:
            self._images.of(model, quote.tier.value).inc(settlement.delivery.images)

    def _count_observed(self, observation: Observation, ended: float) -> None:
        endpoint, model = observation.endpoint, observation.model
        self._requests.of(endpoint, model, observation.outcome).inc()
        self._duration.of(endpoint, model).observe(ended - observation.started)
        self._overhead.of().observe(observation.own_s(ended))
        if observation.outcome == REJECTED:
            self._rejections.of(observation.error).inc()
        if observation.response_bytes:
            self._response_bytes.of(model).inc(observation.response_bytes)
        if observation.provider:
            status = str(observation.provider_status or "none")
            self._upstream_requests.of(observation.provider, model, status).inc()
            self._upstream_duration.of(observation.provider, model).observe(observation.provider_s)

    def _count_store(self, operation: str, seconds: float) -> None:
        self._store_duration.of(operation).observe(seconds)

    def _of_model(self, model: str) -> _OfModel:
        found = self._models.get(model)
        if found is None:
            found = self._models[model] = _OfModel(
                **{state: self._units.of(model, state) for state in ("reserved", "charged", "released", "overage")},
                held=self._held.of(model),
                in_flight=self._in_flight.of(model),
            )
        return found

    def store_health(self, *, healthy: bool) -> None:
        """Whether the store answered."""
        self._store_up.of().set(1 if healthy else 0)

    def unsettled(self, count: int) -> None:
        """How many settlements wait for the store."""
        self._unsettled.of().set(count)

    def flush(self) -> None:
        """Count the events that have been noted."""
        events, self._events = self._events, []
        for count, event in events:
            count(*event)

    def render(self) -> bytes:
        """Prometheus's text format, with everything counted that has happened."""
        self.flush()
        return generate_latest(self.registry)


@dataclass(frozen=True, slots=True)
class _OfModel:
    """What each request of a model counts twice, at hand without looking it up."""

    reserved: Counter
    charged: Counter
    released: Counter
    overage: Counter
    held: Gauge
    in_flight: Gauge


class _Children(Generic[M]):
    """A metric with its labelled children kept: looking one up in the library takes longer than counting."""

    __slots__ = ("_children", "_metric")

    def __init__(self, metric: M) -> None:
        self._metric: M = metric
        self._children: dict[tuple[str, ...], M] = {}

    def of(self, *labels: str) -> M:
        child = self._children.get(labels)
        if child is None:
            child = self._children[labels] = self._metric.labels(*labels) if labels else self._metric
        return child
