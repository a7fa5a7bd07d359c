"""``GET /admin/v1/overview``: what the gateways on a store do now and have done, once or as events."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from itertools import accumulate
from time import monotonic, time
from typing import Any

import orjson
from aiohttp import web
from prometheus_client.parser import text_string_to_metric_families

from proxy.domain.errors import ProxyError, RateLimitExceeded
from proxy.metering.accounts.figures import OWN_TIME, FigureReader, Figures
from proxy.telemetry.metrics import FAST_BOUNDS_S
from proxy.web.console.events import begin_events
from proxy.web.console.wire import OverviewView
from proxy.web.public.models import json_response
from proxy.web.server.routes import Access, Route
from proxy.web.times import iso_time

MINUTES = 60
DAYS = 30
OWN_TIME_MINUTES = 5
EVERY_S = 2.0
"""Between two events. However many watch, the figures are read once for all of them."""

STREAM_S = 300.0
"""Then a browser asks again, which who has signed out meanwhile cannot."""

RETRY_MS = 200
WATCHERS_LIMIT = 50
READS = "/admin/v1/overview"

Vitals = Callable[[], Awaitable[tuple[str, bytes]]]
"""How the gateway is (``/readyz``'s word), and what Prometheus would read, of all of its processes."""


class OverviewRoutes:
    """Handlers of the overview."""

    def __init__(self, figures: FigureReader, vitals: Vitals) -> None:
        """Read ``figures`` of the store and ``vitals`` of this gateway."""
        self._figures = figures
        self._vitals = vitals
        self._closing = asyncio.Event()
        self._watchers = 0
        self._reading: asyncio.Task[dict[str, Any]] | None = None
        self._read_at = 0.0

    def routes(self) -> Sequence[Route]:
        """Where each handler stands."""
        return (
            Route("GET", READS, self.show, Access.VIEWER, {200: OverviewView}),
            Route(
                *("GET", f"{READS}/events", self.watch, Access.VIEWER, {200: None}),
                errors=(RateLimitExceeded,),
                media_type="text/event-stream",
            ),
        )

    async def show(self, _request: web.Request) -> web.Response:
        """What was done in the last hour and the last 30 days, and how the gateway does now."""
        seen = await self._now()
        with contextlib.suppress(ProxyError):
            seen = {**seen, "days": [_day_view(day, figures) for day, figures in await self._figures.days(DAYS)]}
        return json_response(seen)

    async def watch(self, request: web.Request) -> web.StreamResponse:
        """The overview without its days, every two seconds, as server-sent events; it ends after some minutes."""
        if self._watchers >= WATCHERS_LIMIT:
            raise RateLimitExceeded("Too many watch the overview already.", retry_after_s=10, rate_limit_headers={})
        self._watchers += 1
        try:
            response = await begin_events(request)
            ends = monotonic() + STREAM_S
            while not self._closing.is_set() and monotonic() < ends:
                await response.write(b"data: %b\nretry: %d\n\n" % (orjson.dumps(await self._now()), RETRY_MS))
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(EVERY_S):
                        await self._closing.wait()
            return response
        finally:
            self._watchers -= 1

    async def let_go(self, _app: web.Application) -> None:
        """The streams end: the application shuts down."""
        self._closing.set()

    async def _now(self) -> dict[str, Any]:
        """The overview as it is, or was a moment ago."""
        if self._reading is None or (self._reading.done() and monotonic() - self._read_at >= EVERY_S / 2):
            self._reading, self._read_at = asyncio.create_task(self._read()), monotonic()
        # Whoever asked first may leave; the others still want to know.
        return await asyncio.shield(self._reading)

    async def _read(self) -> dict[str, Any]:
        status, text = await self._vitals()
        minutes: list[tuple[int, Figures]] = []
        with contextlib.suppress(ProxyError):
            minutes = await self._figures.minutes(MINUTES)
        samples = _samples(text)
        own = [_own_times(figures) for _, figures in minutes[-OWN_TIME_MINUTES:]]
        buckets = [sum(counts) for counts in zip(*own, strict=True)]
        return {
            "at": iso_time(int(time() * 1000)),
            "gateway": {
                "status": status,
                "in_flight": int(sum(samples["in_flight_requests"].values())),
                "connections": int(sum(samples["connections"].values())),
                "journal_pending": int(sum(samples["journal_pending_settlements"].values())),
                "journal_parked": int(sum(samples["journal_parked_settlements"].values())),
                "own_p50_ms": _percentile_ms(buckets, 0.5),
                "own_p99_ms": _percentile_ms(buckets, 0.99),
            },
            "minutes": [_minute_view(at, figures) for at, figures in minutes],
            "days": [],
            "providers": _providers(samples),
            "deployments": [
                {"model": model, "provider": provider, "state": int(state)}
                for (model, provider), state in sorted(samples["deployment_state"].items())
            ],
        }


Samples = Mapping[str, Mapping[tuple[str, ...], float]]
_PREFIX = "lightmeter_"
_WANTED = {
    "in_flight_requests": ("model",),
    "connections": ("listener",),
    "journal_pending_settlements": (),
    "journal_parked_settlements": (),
    "deployment_state": ("model", "provider"),
    "upstream_requests_total": ("provider", "status"),
    "upstream_out_of_credit_total": ("provider",),
}


def _samples(text: bytes) -> Samples:
    """Of what Prometheus would read, the numbers that are wanted, by the values of their labels."""
    found: dict[str, defaultdict[tuple[str, ...], float]] = defaultdict(lambda: defaultdict(float))
    names = {_PREFIX + name.removesuffix("_total") for name in _WANTED}
    # A family begins at its HELP, and those that nobody wants are not read at all.
    wanted = [part for part in text.decode().split("# HELP ") if part.partition(" ")[0].removesuffix("_total") in names]
    for family in text_string_to_metric_families("".join(f"# HELP {part}" for part in wanted)):
        for sample in family.samples:
            labels = _WANTED.get(sample.name.removeprefix(_PREFIX))
            if labels is not None:
                place = tuple(sample.labels.get(label, "") for label in labels)
                found[sample.name.removeprefix(_PREFIX)][place] += sample.value
    return found


def _providers(samples: Samples) -> list[dict[str, Any]]:
    asked: Counter[str] = Counter()
    failed: Counter[str] = Counter()
    for (provider, status), requests in samples["upstream_requests_total"].items():
        asked[provider] += int(requests)
        if status == "none" or status.startswith("5"):
            failed[provider] += int(requests)
    broke = {provider: int(count) for (provider,), count in samples["upstream_out_of_credit_total"].items()}
    return [
        {
            "name": name,
            "requests": asked[name],
            "failed": failed[name],
            "out_of_credit": broke.get(name, 0),
        }
        for name in sorted({*asked, *broke})
    ]


# --- Figures of the store ---------------------------------------------------------------------------------------------


def _of(figures: Figures, kind: str) -> dict[str, int]:
    return {name.removeprefix(kind): count for name, count in figures.items() if name.startswith(kind) and count > 0}


def _own_times(figures: Figures) -> list[int]:
    return [figures.get(f"{OWN_TIME}{bucket}", 0) for bucket in range(len(FAST_BOUNDS_S) + 1)]


def _minute_view(at_s: int, figures: Figures) -> dict[str, Any]:
    return {"at": iso_time(at_s * 1000), **_sums(figures)}


def _day_view(day: str, figures: Figures) -> dict[str, Any]:
    images, units = _of(figures, "images:"), _of(figures, "units:")
    by_model = {
        model: {"images": images.get(model, 0), "quota_units": units.get(model, 0)}
        for model in sorted({*images, *units})
    }
    return {"day": day, **_sums(figures), "by_model": by_model}


def _sums(figures: Figures) -> dict[str, Any]:
    return {
        "outcomes": _of(figures, "requests:"),
        "images": sum(_of(figures, "images:").values()),
        "quota_units": sum(_of(figures, "units:").values()),
    }


def _percentile_ms(buckets: Sequence[int], share: float) -> float | None:
    """The time that ``share`` of all stayed below, as the buckets tell it: read between a bucket's bounds."""
    total = sum(buckets)
    if not total:
        return None
    wanted = share * total
    for bucket, (count, up_to) in enumerate(zip(buckets, accumulate(buckets), strict=True)):
        if up_to >= wanted:
            below = FAST_BOUNDS_S[bucket - 1] if bucket else 0.0
            above = FAST_BOUNDS_S[bucket] if bucket < len(FAST_BOUNDS_S) else below
            return round((below + (above - below) * (wanted - (up_to - count)) / max(1, count)) * 1000, 4)
    return None
