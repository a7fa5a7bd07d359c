from __future__ import annotations

import asyncio
import math
from dataclasses import replace
from decimal import Decimal
from time import monotonic
from typing import Any

import pytest

from proxy.domain.billing.settlement import Served
from proxy.domain.catalog import Deployment, Model
from proxy.domain.errors import (
    ClientGone,
    InvalidRequest,
    NoCredentials,
    NothingGenerated,
    ProviderOutOfCredit,
    ProviderRefusal,
    ProxyError,
    UpstreamError,
    UpstreamMisconfigured,
    UpstreamRateLimit,
    UpstreamTimeout,
    UpstreamTruncated,
)
from proxy.domain.errors import UpstreamUnreachable as Unreachable
from proxy.telemetry.metrics import Metrics
from proxy.telemetry.observation import Observation
from proxy.upstream.breaker import BREAKER, Result
from proxy.upstream.errors.failures import error_in_answer
from proxy.upstream.errors.reports import ErrorReport
from proxy.upstream.failover import Failover, result_of, why_again
from proxy.upstream.provider import Provider
from proxy.upstream.routing import Balancer
from proxy.upstream.watchdog import Watch, Watchdog

CAREFUL = Provider("acme", "openai", "http://127.0.0.1")
TRUSTING = replace(CAREFUL, retry_bad_gateway=True, retry_late_first_byte=True)
REFUSAL = ProviderRefusal("no", provider_status=400, provider_code=None, param=None)


@pytest.mark.parametrize(
    ("error", "status", "careful", "trusting", "result"),
    [
        (Unreachable("x"), 0, "unreachable", "unreachable", Result.UNREACHABLE),
        (UpstreamRateLimit("x"), 429, "rate_limited", "rate_limited", Result.RATE_LIMITED),
        (UpstreamError("x"), 503, "unavailable", "unavailable", Result.FAILED),
        (UpstreamError("x"), 502, None, "bad_gateway", Result.FAILED),
        (UpstreamTimeout("x"), 0, None, "late_first_byte", Result.FAILED),
        (UpstreamTimeout("x"), 504, None, None, Result.FAILED),
        (UpstreamTimeout("x"), 200, None, None, Result.FAILED),
        (UpstreamError("x"), 0, None, None, Result.FAILED),
        (UpstreamError("x"), 500, None, None, Result.FAILED),
        (REFUSAL, 400, None, None, Result.OK),
        (ClientGone(), 0, None, None, Result.NEITHER),
        (ClientGone(), 503, None, None, Result.NEITHER),
        (asyncio.CancelledError(), 503, None, None, Result.NEITHER),
        (RuntimeError(), 0, None, None, Result.NEITHER),
        (InvalidRequest("x"), 0, None, None, Result.NEITHER),
        (InvalidRequest("x"), 200, None, None, Result.NEITHER),
        (NoCredentials(), 0, "no_credentials", "no_credentials", Result.UNREACHABLE),
        (UpstreamMisconfigured("x"), 401, None, None, Result.FAILED),
        (UpstreamTruncated("x"), 200, None, None, Result.FAILED),
        (UpstreamRateLimit("x"), 200, None, None, Result.RATE_LIMITED),
        *(
            (ProviderOutOfCredit(), status, "out_of_credit", "out_of_credit", Result.OUT_OF_CREDIT)
            for status in (200, 400, 402, 403, 429)
        ),
        (NothingGenerated("x", reason="SAFETY"), 200, None, None, Result.OK),
        (ClientGone(), 429, None, None, Result.RATE_LIMITED),
    ],
)
def test_when_another_deployment_may_be_asked(
    error: BaseException, status: int, careful: str | None, trusting: str | None, result: Result
) -> None:
    assert why_again(error, status, CAREFUL) == careful
    assert why_again(error, status, TRUSTING) == trusting
    assert result_of(error, status) is result


# --- Waiting ----------------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _asked_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clients below make their exchanges themselves."""
    monkeypatch.setattr("proxy.upstream.failover.ask", lambda client, *asked: client.ask(*asked))


class Exchange:
    """One that ends as it should; ``ends`` is an error, or nothing where it waits until it is cancelled."""

    is_whole = True
    failure: ProxyError | None = None
    retry_after_s: int | None = None

    def __init__(self, client: Client, ends: BaseException | None) -> None:
        self.client = client
        self.watchdog = Watchdog(Watch(), total_s=60)
        self._ends = ends

    async def __aenter__(self) -> Exchange:
        self.client.entered.set()
        if self._ends is None:
            await asyncio.Event().wait()
        elif not isinstance(self._ends, Answered):
            raise self._ends
        return self

    async def __aexit__(self, *_error: object) -> None:
        await asyncio.sleep(self.client.closing_s)


class Answered(BaseException):
    """A way to end that is no error."""


class Client:
    """A provider that answers its requests in these ways, one after the other."""

    def __init__(self, *ends: BaseException | None, status: int = 0, closing_s: float = 0) -> None:
        self.provider = CAREFUL
        self.entered = asyncio.Event()
        self.closing_s = closing_s
        self._ends = list(ends)
        self._status = status

    def ask(self, _asked: object, _model: object, served: Served, _observation: object) -> Exchange:
        served.status = self._status
        return Exchange(self, self._ends.pop(0))


def routes_to(*names: str) -> Balancer:
    deployments = tuple(Deployment(name, "image") for name in names)
    return Balancer(Model("acme/image-1", "a", "image-1", Decimal(1), frozenset(), deployments=deployments))


def failover(
    routes: Balancer, clients: dict[str, Client], *, client_left: bool = False
) -> tuple[Failover, Served, Metrics]:
    served, metrics = Served(), Metrics()
    asked: Any = None
    observation = Observation("req_1", "/v1/images/generations", key_id="acme_1")
    client_of: Any = clients.__getitem__
    made = Failover(client_of, routes, asked, routes.model, served, observation, metrics, lambda: client_left)
    return made, served, metrics


def rate_limited(retry_after_s: int | None) -> UpstreamRateLimit:
    return UpstreamRateLimit("x", retry_after_s=retry_after_s)


@pytest.mark.parametrize(
    ("own_s", "other_s", "told_s"),
    [(30, 12.2, 13), (30, 0.3, 1), (30, 90, 30), (None, 12, None)],
    ids=["the other is back before", "at least a second", "it is back before the other", "it did not say"],
)
def test_a_rate_limit_asks_for_the_shortest_wait(own_s: int | None, other_s: float, told_s: int | None) -> None:
    async def ask() -> int | None:
        routes = routes_to("a", "b")
        routes.targets[1].paused_until_s = monotonic() + other_s
        request, _, _ = failover(routes, {"a": Client(rate_limited(own_s), status=429)})
        with pytest.raises(UpstreamRateLimit) as refused:
            await request.__aenter__()
        return refused.value.retry_after_s

    assert asyncio.run(ask()) == told_s


@pytest.mark.parametrize(
    ("paused_s", "failures", "refusal", "told_s"),
    [
        ((40, 12.5), 0, UpstreamRateLimit, 13),
        ((0.2, 0.3), 0, UpstreamRateLimit, 1),
        # One is left alone after its failures, and has not asked for a pause itself.
        ((40, 0), BREAKER.consecutive, Unreachable, math.ceil(BREAKER.open_s)),
    ],
)
def test_where_nobody_can_be_asked_the_client_is_told_how_long_and_nothing_is_counted(
    paused_s: tuple[float, float], failures: int, refusal: type[ProxyError], told_s: int
) -> None:
    async def ask() -> tuple[type[BaseException], int | None, int, list[int]]:
        routes = routes_to("a", "b")
        for target, seconds in zip(routes.targets, paused_s, strict=True):
            target.paused_until_s = monotonic() + seconds
        for _ in range(failures):
            attempt = routes.begin(monotonic(), "acme_2")
            assert attempt is not None
            routes.end(attempt, monotonic(), Result.UNREACHABLE)
        request, served, _ = failover(routes, {})
        with pytest.raises(ProxyError) as refused:
            await request.__aenter__()
        return refused.type, refused.value.retry_after_s, served.attempts, [one.in_flight for one in routes.targets]

    assert asyncio.run(ask()) == (refusal, told_s, 0, [0, 0])


def test_the_next_deployment_is_asked_and_each_end_is_counted() -> None:
    async def ask() -> list[int]:
        routes = routes_to("a", "b")
        request, served, metrics = failover(
            routes, {"a": Client(Unreachable("x")), "b": Client(Answered(), status=200)}
        )
        async with request:
            in_flight = [target.in_flight for target in routes.targets]
        assert (served.attempts, served.status) == (2, 200)
        retries = metrics.registry.get_sample_value("lightmeter_retries_total", {"reason": "unreachable"})
        assert (retries, [target.in_flight for target in routes.targets]) == (1, [0, 0])
        return in_flight

    assert asyncio.run(ask()) == [0, 1]


@pytest.mark.parametrize("why", ["its client has left", "the budget is spent"])
def test_no_other_is_asked_where(why: str) -> None:
    async def ask() -> float | None:
        routes = routes_to("a", "b")
        if why == "the budget is spent":
            while routes.budget.take(monotonic()):
                pass
            routes.budget.floor_per_s = routes.budget.share = 0
        clients = {"a": Client(Unreachable("x")), "b": Client(Answered())}
        request, served, metrics = failover(routes, clients, client_left=why == "its client has left")
        with pytest.raises(Unreachable):
            await request.__aenter__()
        assert (served.attempts, clients["b"].entered.is_set()) == (1, False)
        return metrics.registry.get_sample_value("lightmeter_retries_over_budget_total")

    assert asyncio.run(ask()) == (why == "the budget is spent")


@pytest.mark.parametrize("where", ["at the first", "at the second", "while it is closed"])
def test_a_request_that_is_cancelled_anywhere_is_in_flight_nowhere(where: str) -> None:
    async def cancel() -> list[int]:
        routes = routes_to("a", "b")
        first = Client(None) if where == "at the first" else Client(Unreachable("x"))
        second = Client(None) if where == "at the second" else Client(Answered(), closing_s=60)
        request, _, metrics = failover(routes, {"a": first, "b": second})

        async def use() -> None:
            async with request:
                pass

        task = asyncio.create_task(use())
        await (first if where == "at the first" else second).entered.wait()
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        # It says nothing about the deployment.
        labels = {"provider": "a" if where == "at the first" else "b", "model": "acme/image-1", "result": "neither"}
        assert metrics.registry.get_sample_value("lightmeter_upstream_attempts_total", labels) == 1
        return [target.in_flight for target in routes.targets]

    assert asyncio.run(cancel()) == [0, 0]


@pytest.mark.parametrize(
    ("reported", "reason"), [(429, "rate_limited"), (503, "unavailable"), (500, None), (504, None), (400, None)]
)
def test_the_status_that_an_error_within_a_2xx_names_is_what_counts(reported: int, reason: str | None) -> None:
    error = error_in_answer(ErrorReport("no", status=reported))
    assert error.reported_status == reported
    assert why_again(error, 200, CAREFUL) == reason
