"""What Prometheus sees. Labels are configured names only, so that no client can add a series."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Protocol

from prometheus_client import GC_COLLECTOR, PLATFORM_COLLECTOR, PROCESS_COLLECTOR, CollectorRegistry, generate_latest

from proxy.domain.billing.settlement import Reservation, Settlement
from proxy.domain.money import NO_MONEY, Money
from proxy.telemetry.observation import OK, REJECTED, Observation
from proxy.telemetry.tallies import Families, Keeper, TallyCollector
from proxy.telemetry.team_metrics import TeamMetrics
from proxy.telemetry.version import package_version

FAST_BOUNDS_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.5)
SLOW_BOUNDS_S = (0.01, 0.05, 0.1, 0.5, 1, 2.5, 5, 10, 20, 40, 60, 120, 300, 600)


OUT_OF_QUOTA = "insufficient_quota"


class Marks(Protocol):
    """Who wants to know whose quota has changed."""

    def charged(self, key_id: str) -> None:
        """A request of the key was charged."""
        ...

    def refused(self, key_id: str) -> None:
        """A request of the key was refused for want of quota."""
        ...


class Metrics:
    """Every metric, each updated by the event that it counts. One of these for each process."""

    def __init__(self, *, label_teams: int = 0, money: Money = NO_MONEY, keeper: Keeper | None = None) -> None:
        """Start at zero, in a registry of its own. At most ``label_teams`` teams are a label; 0 makes none one.

        What was charged is told in ``money`` as well, where it says what a unit is worth. The numbers are this
        process's own, or kept by ``keeper``.
        """
        self._units_per_usd = money.units_per_usd
        make = Families("lightmeter_", keeper)
        self._add_requests(make)
        self._add_upstream(make)
        self._add_store(make)
        build = make.gauge("build_info", "Always 1; the label is the version", "version", combine="max")
        build.values[(package_version(),)] = 1
        if money.units_per_usd is not None:
            worth = make.gauge(
                "units_per_usd", "What a US dollar is in quota units, by accounting.units_per_usd", combine="max"
            )
            worth.values[()] = float(money.units_per_usd)
        self.teams: TeamMetrics | None = None
        """Figures of teams, where teams may be a label."""
        self.marks: Marks | None = None
        """Where alerts are configured: whose quota has changed."""
        if label_teams:
            self.teams = TeamMetrics(
                make.counter("team_charged_units", "Quota units charged, by team", "team", "model"),
                make.counter("team_images", "Images that were generated and charged, by team", "team", "model"),
                make.gauge(
                    "team_quota_units", "A team's quota as the store has it", "team", "limit", "state", combine="max"
                ),
                label_teams=label_teams,
            )
        self._before_render: list[Callable[[], None]] = []
        self.registry = CollectorRegistry()
        for collector in (PROCESS_COLLECTOR, PLATFORM_COLLECTOR, GC_COLLECTOR, TallyCollector(make.parts)):
            self.registry.register(collector)

    def _add_requests(self, make: Families) -> None:
        self._requests = make.counter("requests", "Requests that ended, by outcome", "endpoint", "model", "outcome")
        self._rejections = make.counter("rejections", "Requests that were not forwarded, by error code", "reason")
        self._images = make.counter(
            "images", "Images that were generated and charged, by the tier charged", "model", "tier"
        )
        self._smaller = make.counter(
            "images_smaller_than_asked", "Images that came in less than the size asked for", "model"
        )
        self._units = make.counter("quota_units", "Quota units by what became of them", "model", "state")
        self._charged_usd = make.counter("charged_usd", "US dollars charged, by accounting.units_per_usd", "model")
        self._response_bytes = make.counter("response_bytes", "Bytes of answers sent to clients", "model")
        self._in_flight = make.gauge("in_flight_requests", "Requests that hold a reservation", "model")
        self._open = make.gauge("open_requests", "Requests that have begun and not ended, admitted or not")
        self._held = make.gauge("quota_units_held", "Quota units reserved and not yet settled by this process", "model")
        self._duration = make.timing(
            "request_duration_seconds", "From the first byte to the last", SLOW_BOUNDS_S, "endpoint", "model"
        )
        self._overhead = make.timing(
            "overhead_seconds", "Lightmeter's own time: waiting neither for the provider nor the client", FAST_BOUNDS_S
        )

        self._connections = make.gauge("connections", "Connections of clients that are open", "listener")
        self._closed = make.counter(
            "connections_closed",
            "Connections that the gateway closed on its own: evicted for a new one, refused, or with an answer unread",
            "listener",
            "reason",
        )
        self._uploads = make.gauge("upload_disk_bytes", "What uploads take on the disk while their requests last")
        self._bodies = make.gauge("body_memory_bytes", "What large JSON bodies have while their requests last")
        self._dropped_lines = make.counter(
            "log_lines_dropped", "Lines of the log that were not written, for nobody read it or it took no more"
        )
        self._reloads = make.counter(
            "config_reloads", "Configurations read again, by whether they were taken", "result"
        )

    def _add_upstream(self, make: Families) -> None:
        self._upstream_requests = make.counter(
            "upstream_requests",
            "Requests sent to providers; none is no answer",
            "provider",
            "model",
            "status",
        )
        self._attempts = make.counter(
            "upstream_attempts", "Requests to deployments, by how they ended", "provider", "model", "result"
        )
        self._retries = make.counter(
            "retries", "Requests sent to another deployment, by why the one before failed", "reason"
        )
        self._fallbacks = make.counter(
            "fallbacks", "Requests for a model that were sent to another one instead", "model", "asked_instead"
        )
        self._over_budget = make.counter(
            "retries_over_budget", "Requests that were not sent again, to spare the providers"
        )
        self._deployments = make.gauge(
            "deployment_state",
            "To the last key there: 0 closed, 1 half-open, 2 open or paused",
            *("provider", "model"),
            combine="max",
        )
        self._out_of_credit = make.counter(
            "upstream_out_of_credit", "Answers by which a provider refused the gateway's account", "provider"
        )
        self._upstream_duration = make.timing(
            "upstream_duration_seconds", "Time spent waiting for the provider", SLOW_BOUNDS_S, "provider", "model"
        )

    def _add_store(self, make: Families) -> None:
        self._store_duration = make.timing(
            "store_duration_seconds", "Time of one operation of the store", FAST_BOUNDS_S, "operation"
        )
        self._store_errors = make.counter(
            "store_errors", "Operations that the store did not take, or gave no answer to", "operation"
        )
        # There from the start, so that the first error is seen as one.
        for operation in ("admit", "settle"):
            self._store_errors.values[(operation,)] = 0
        self._store_up = make.gauge("store_up", "Whether the store answered the last time it was asked", combine="min")
        self._store_node_up = make.gauge(
            "store_node_up", "The same of each node of a Cluster, once it was asked for anything", "node", combine="min"
        )
        self._pending = make.gauge(
            "journal_pending_settlements", "What the journal holds that the store has not taken yet"
        )
        self._parked = make.gauge(
            "journal_parked_settlements",
            "What the journal keeps for a person to decide, the store refusing it every time",
            combine="max",
        )
        self._journal_up = make.gauge(
            "journal_up", "Whether the journal could be written the last time it was tried", combine="min"
        )
        self._ship_lag = make.gauge(
            "ledger_ship_lag_seconds",
            "Since the moment up to which a shipper of accounting.ledger_shippers has shipped the whole ledger",
            "shipper",
            combine="max",
        )
        self._expired = make.counter("expired_leases", "Expired leases of gateways that died, reclaimed by this one")
        self._reposted = make.counter(
            "reposted_settlements", "Settlements that the store had taken and lost, posted again"
        )
        for tally in (self._expired, self._reposted, self._pending):
            tally.values[()] = 0
        self.store_health(healthy=True)

    def reserved(self, reservation: Reservation) -> None:
        """A request was admitted."""
        model, units = reservation.model, reservation.quote.units
        self._units.values[model, "reserved"] += units
        self._held.values[(model,)] += units
        self._in_flight.values[(model,)] += 1

    def settled(self, settlement: Settlement) -> None:
        """A request has ended. ``reserved = charged - overage + released + held`` is true before and after.

        Where another model made it, what was held for the one that was asked for is released there, and reserved here.
        """
        model, quote = settlement.reservation.model, settlement.reservation.quote
        units, asked_model = self._units.values, settlement.reservation.asked_model or settlement.reservation.model
        if asked_model != model:
            units[asked_model, "released"] += quote.units
            units[model, "reserved"] += quote.units
        units[model, "charged"] += settlement.charged_units
        units[model, "released"] += settlement.released_units
        units[model, "overage"] += settlement.overage_units
        if self._units_per_usd is not None:
            self._charged_usd.values[(model,)] = units[model, "charged"] / float(self._units_per_usd)
        self._held.values[(asked_model,)] -= quote.units
        self._in_flight.values[(asked_model,)] -= 1
        delivery = settlement.delivery
        if settlement.charged_by:
            for each in settlement.charged_by:
                self._images.values[model, each.tier.value] += each.images
        elif delivery.images:
            self._images.values[model, str(quote.tier)] += delivery.images
        if self.teams is not None:
            self.teams.settled(settlement)
        if self.marks is not None and settlement.charged_units:
            self.marks.charged(settlement.reservation.key_id)
        asked = delivery.terms.asked_size
        if asked is not None and any(delivery.sizes):
            smaller = sum(size is not None and asked.is_larger_than(*size) for size in delivery.sizes)
            if smaller:
                self._smaller.values[(model,)] += smaller

    def observed(self, observation: Observation, ended: float) -> None:
        """A request has been answered."""
        endpoint, model = observation.endpoint, observation.model
        self._requests.values[endpoint, model, observation.outcome] += 1
        self._duration.observe((endpoint, model), ended - observation.started)
        self._overhead.observe((), observation.own_s(ended))
        if observation.outcome == REJECTED:
            self._rejections.values[(observation.error,)] += 1
            if self.marks is not None and observation.error == OUT_OF_QUOTA and observation.key_id:
                self.marks.refused(observation.key_id)
        if observation.response_bytes:
            self._response_bytes.values[(model,)] += observation.response_bytes
        # Each deployment that was asked has been counted by ``attempted``.
        if observation.provider and observation.attempts is None:
            self._asked(observation.provider, model, observation.provider_status, observation.provider_s)

    def attempted(self, provider: str, model: str, result: str, status: int, waited_s: float) -> None:
        """A deployment was asked, and it ended; ``status`` is 0 where it gave no answer."""
        self._attempts.values[provider, model, result] += 1
        self._asked(provider, model, status, waited_s)

    def _asked(self, provider: str, model: str, status: int, waited_s: float) -> None:
        self._upstream_requests.values[provider, model, str(status or "none")] += 1
        self._upstream_duration.observe((provider, model), waited_s)

    def has_provider(self, provider: str) -> None:
        """It may be asked from now on; its series is there before the first event, which is seen as one."""
        self._out_of_credit.values[(provider,)] += 0

    def refused_accounts(self) -> dict[str, float]:
        """How often each provider refused the gateway's account."""
        return {provider: count for (provider,), count in self._out_of_credit.values.items()}

    def out_of_credit(self, provider: str) -> None:
        """A provider refused the gateway's account."""
        self._out_of_credit.values[(provider,)] += 1

    def retried(self, reason: str) -> None:
        """A request goes to another deployment."""
        self._retries.values[(reason,)] += 1

    def fell_back(self, model: str, instead: str) -> None:
        """A request for ``model`` goes to another model."""
        self._fallbacks.values[model, instead] += 1

    def retry_over_budget(self) -> None:
        """A request could have gone to another deployment."""
        self._over_budget.values[()] += 1

    def deployment_states(self, states: Mapping[tuple[str, str], int]) -> None:
        """How the breaker of each deployment stands, by provider and model, at this scrape."""
        self._deployments.values.clear()
        for place, state in states.items():
            self._deployments.values[place] = state

    def uploads(self, disk_bytes: int, memory_bytes: int) -> None:
        """What uploads take on the disk, and large bodies in memory, at this scrape."""
        self._uploads.values[()] = disk_bytes
        self._bodies.values[()] = memory_bytes

    def log_lines_dropped(self, count: int) -> None:
        """How many lines of the log were not written since the start, at this scrape."""
        self._dropped_lines.values[()] = count

    def connections(self, listener: str, count: int) -> None:
        """How many connections a listener has, at this scrape."""
        self._connections.values[(listener,)] = count

    def connection_closed(self, listener: str, reason: str) -> None:
        """A listener has closed a connection on its own."""
        self._closed.values[listener, reason] += 1

    def reloaded(self, *, taken: bool) -> None:
        """The configuration was read again, and was taken or refused."""
        self._reloads.values[("ok" if taken else "refused",)] += 1

    def before_render(self, report: Callable[[], None]) -> None:
        """Call ``report`` at each scrape, for what is only looked up then."""
        self._before_render.append(report)

    def open_requests(self, count: int) -> None:
        """How many requests are at work, at this scrape."""
        self._open.values[()] = count

    def expired(self, leases: int) -> None:
        """Leases expired, and were reclaimed."""
        self._expired.values[()] += leases

    def observe_store(self, operation: str, seconds: float) -> None:
        """The store was asked for something."""
        self._store_duration.observe((operation,), seconds)

    def store_failed(self, operation: str) -> None:
        """The store did not take an operation, or gave no answer in time."""
        self._store_errors.values[(operation,)] += 1

    def store_health(self, *, healthy: bool) -> None:
        """Whether the store answered."""
        self._store_up.values[()] = 1 if healthy else 0

    def store_node_health(self, node: str, *, healthy: bool) -> None:
        """Whether a node of a Cluster answered; ``node`` is its host and port."""
        self._store_node_up.values[(node,)] = 1 if healthy else 0

    def store_node_left(self, node: str) -> None:
        """It is a node of the store no more."""
        self._store_node_up.values.pop((node,), None)

    def journal_pending(self, count: int) -> None:
        """How many settlements wait for the store."""
        self._pending.values[()] = count

    def journal_parked(self, count: int) -> None:
        """How many records of the journal's folder wait for a person."""
        self._parked.values[()] = count

    def journal_health(self, *, healthy: bool) -> None:
        """Whether the journal could be written."""
        self._journal_up.values[()] = 1 if healthy else 0

    def ship_lag(self, shipper: str, seconds: float) -> None:
        """How far a shipper of the ledger is behind, at this scrape."""
        self._ship_lag.values[(shipper,)] = seconds

    def reposted(self, settlements: int) -> None:
        """The store had lost settlements that it had taken."""
        self._reposted.values[()] += settlements

    def totals(self) -> dict[str, int]:
        """What this process has done since its start, for the figures that people look at: sums by name.

        ``requests:OUTCOME`` of the public API, ``images:MODEL`` and ``units:MODEL`` that were charged, and
        ``own:BUCKET``, requests by Lightmeter's own time, whose bounds are ``FAST_BOUNDS_S``.
        """
        found: Counter[str] = Counter()
        for (endpoint, _model, outcome), requests in self._requests.values.items():
            if endpoint.startswith("/") and outcome != OK:
                found[f"requests:{outcome}"] += int(requests)
        for (model, _tier), images in self._images.values.items():
            found[f"images:{model}"] += int(images)
        for (model, state), units in self._units.values.items():
            if state == "charged":
                found[f"units:{model}"] += int(units)
        for bucket, requests in enumerate(self._overhead.counts(())):
            found[f"own:{bucket}"] += int(requests)
        return dict(found)

    def refresh(self) -> None:
        """Look up what is only looked up at a scrape."""
        for report in self._before_render:
            report()

    def render(self) -> bytes:
        """Prometheus's text format."""
        self.refresh()
        return generate_latest(self.registry)
