from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import Any, cast

import pytest

from proxy.domain.answers.images.joined import JoinedImages
from proxy.domain.answers.images.writing import ImagesHead
from proxy.domain.billing.offers import Offer
from proxy.domain.billing.pricing import NO_TERMS, Terms
from proxy.domain.billing.settlement import Delivery, Served
from proxy.domain.catalog import Deployment, Model
from proxy.domain.errors import ProxyError, UpstreamError, UpstreamRateLimit
from proxy.domain.errors import UpstreamUnreachable as Unreachable
from proxy.telemetry.metrics import Metrics
from proxy.telemetry.observation import Observation
from proxy.upstream.failover import Failover
from proxy.upstream.fallback import Fallback, Upstream
from proxy.upstream.routing import Balancer
from proxy.upstream.side_by_side import OneOfSeveral, SideBySide
from tests.domain.samples import make_model, make_quote
from tests.support.virtual_time import run
from tests.upstream.test_failover import Answered, Client

KEY = "acme_1"


@pytest.fixture(autouse=True)
def _asked_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clients below make their exchanges themselves."""
    monkeypatch.setattr("proxy.upstream.failover.ask", lambda client, *asked: client.ask(*asked))


class Stage:
    """Models that are each made in one place; ``clients`` are asked by their names."""

    def __init__(self, *, is_left: bool = False, side_by_side: str = "", **clients: Client) -> None:
        self.clients = clients
        self.models = {
            name: make_model(id=name, deployments=(Deployment(name, "image"),), images_at_once=1) for name in clients
        }
        self.routes = {name: Balancer(model) for name, model in self.models.items()}
        first, *others = self.models.values()
        asked: Any = None
        terms = {model.id: Terms(kept_answer_bytes=len(model.id)) for model in others}
        offers = (Offer(asked, model, make_quote(1, 100), terms[model.id]) for model in others)
        self.delivery = Delivery(fallbacks=tuple(offers))
        self.observation = Observation("req_1", "/v1/images/generations", key_id=KEY)
        self.metrics = Metrics()
        self._side_by_side = side_by_side
        self.request = Fallback(
            *(self._ask, lambda model: self.routes[model.id], asked, first, self.delivery, self.observation),
            *(self.metrics, lambda: is_left),
        )

    def _ask(self, asked: Any, model: Model) -> Upstream:
        if model.id not in self._side_by_side:
            return self._failover(asked, model, self.delivery.served, self.observation)
        requests = []
        for _ in range(2):
            served = Served()
            own = Observation("req_1", "", key_id=KEY)
            requests.append(OneOfSeveral(self._failover(asked, model, served, own), served))
        answer = JoinedImages(ImagesHead(1, "generation"), stream=False)
        return SideBySide(requests, answer, self.delivery.served, self.observation)

    def _failover(self, asked: Any, model: Model, served: Served, observation: Observation) -> Failover:
        client_of = cast("Any", self.clients.__getitem__)
        return Failover(
            client_of, self.routes[model.id], asked, model, served, observation, self.metrics, lambda: False
        )

    def metric(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(f"lightmeter_{name}", labels) or 0.0

    @property
    def in_flight(self) -> list[int]:
        return [target.in_flight for routes in self.routes.values() for target in routes.targets]

    def open_breaker(self, name: str) -> None:
        """As after an outage that others have met."""
        self.routes[name].targets[0].paused_until_s = monotonic() + 1_000


def spend_budget(routes: Balancer) -> None:
    while routes.budget.take(monotonic()):
        pass
    routes.budget.floor_per_s = routes.budget.share = 0


def test_the_next_model_is_asked_at_its_own_terms_and_all_attempts_are_counted() -> None:
    async def ask() -> None:
        stage = Stage(a=Client(Unreachable("x")), b=Client(Unreachable("x")), c=Client(Answered(), status=200))
        async with stage.request:
            assert stage.in_flight == [0, 0, 1]
        assert stage.in_flight == [0, 0, 0]
        assert stage.delivery.offer is stage.delivery.fallbacks[1]
        assert stage.delivery.terms is stage.delivery.fallbacks[1].terms
        assert (stage.delivery.served.attempts, stage.observation.attempts) == (3, 3)
        assert stage.metric("fallbacks_total", model="a", asked_instead="b") == 1
        assert stage.metric("fallbacks_total", model="a", asked_instead="c") == 1
        assert stage.metric("upstream_attempts_total", provider="b", model="b", result="unreachable") == 1

    run(ask())


def test_where_the_model_itself_answers_nothing_changes() -> None:
    async def ask() -> None:
        stage = Stage(a=Client(Answered()), b=Client())
        async with stage.request:
            pass
        assert (stage.delivery.offer, stage.delivery.terms, stage.observation.attempts) == (None, NO_TERMS, 1)

    run(ask())


def test_a_model_whose_breaker_is_open_is_passed_over_and_takes_nothing_of_the_budget() -> None:
    async def ask() -> None:
        stage = Stage(a=Client(), b=Client(), c=Client(Answered()))
        for name in "ab":
            stage.open_breaker(name)
            spend_budget(stage.routes[name])
        async with stage.request:
            pass
        assert stage.delivery.offer is stage.delivery.fallbacks[1]
        assert stage.observation.attempts == 1
        assert stage.metric("retries_over_budget_total") == 0

    run(ask())


def expect(stage: Stage, error: type[ProxyError]) -> Callable[[], Any]:
    async def ask() -> None:
        with pytest.raises(error):
            await stage.request.__aenter__()
        assert stage.in_flight == [0] * len(stage.models)

    return ask


def test_nobody_else_is_asked_where_the_budget_is_spent_or_the_client_has_left_or_it_may_have_been_made() -> None:
    async def ask() -> None:
        spent = Stage(a=Client(Unreachable("x")), b=Client())
        spend_budget(spent.routes["a"])
        await expect(spent, Unreachable)()
        assert spent.metric("retries_over_budget_total") == 1
        left = Stage(is_left=True, a=Client(Unreachable("x")), b=Client())
        await expect(left, Unreachable)()
        made = Stage(a=Client(UpstreamError("x"), status=500), b=Client())
        await expect(made, UpstreamError)()
        for stage in (spent, left, made):
            assert stage.delivery.offer is None
            assert not stage.clients["b"].entered.is_set()

    run(ask())


def test_the_last_that_was_asked_says_why_where_nobody_can() -> None:
    async def ask() -> None:
        stage = Stage(a=Client(Unreachable("x")), b=Client(UpstreamRateLimit("x"), status=429), c=Client())
        stage.open_breaker("c")
        await expect(stage, UpstreamRateLimit)()
        assert stage.delivery.offer is stage.delivery.fallbacks[0]
        closed = Stage(a=Client(), b=Client())
        for name in "ab":
            closed.open_breaker(name)
        await expect(closed, UpstreamRateLimit)()
        assert (closed.delivery.offer, closed.observation.attempts) == (None, 0)

    run(ask())


@pytest.mark.parametrize("where", ["a", "b"])
@pytest.mark.parametrize("side_by_side", ["", "a", "b", "ab"])
def test_a_request_that_is_cancelled_anywhere_is_in_flight_nowhere(where: str, side_by_side: str) -> None:
    async def cancel() -> None:
        ends = [None, None] if where == "a" else [Unreachable("x"), Unreachable("x")]
        stage = Stage(side_by_side=side_by_side, a=Client(*ends), b=Client(None, None))
        task = asyncio.create_task(stage.request.__aenter__())
        await asyncio.wait_for(stage.clients[where].entered.wait(), 5)
        await asyncio.sleep(0.01)
        assert sum(stage.in_flight) == (2 if where in side_by_side else 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert stage.in_flight == [0, 0]

    run(cancel())


def test_several_requests_go_elsewhere_once_all_of_them_have_failed() -> None:
    async def ask() -> None:
        stage = Stage(side_by_side="a", a=Client(Unreachable("x"), Unreachable("x")), b=Client(Answered()))
        async with stage.request:
            assert stage.in_flight == [0, 1]
        assert (stage.delivery.offer, stage.in_flight) == (stage.delivery.fallbacks[0], [0, 0])
        assert stage.observation.attempts == 2
        one_left = Stage(side_by_side="a", a=Client(Unreachable("x"), UpstreamError("x")), b=Client())
        async with one_left.request as entered:
            assert isinstance(entered, SideBySide)
        assert (one_left.delivery.offer, one_left.in_flight) == (None, [0, 0])

    run(ask())
