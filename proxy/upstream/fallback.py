"""One request to a model that others may stand in for: asked of one after the other, where that is safe.

Another model is asked only where another deployment of the first would be, if there were one: nothing can have been
generated. What failed once it was sent takes from that model's retry budget; what no deployment could take does not.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from time import monotonic
from types import TracebackType

from proxy.domain.billing.offers import Offer
from proxy.domain.billing.settlement import Delivery
from proxy.domain.catalog import Model
from proxy.domain.errors import ProxyError
from proxy.telemetry.metrics import Metrics
from proxy.telemetry.observation import Observation
from proxy.upstream.exchange import Asked, Exchange
from proxy.upstream.failover import NOBODY, Failover
from proxy.upstream.routing import Balancer
from proxy.upstream.side_by_side import SideBySide

logger = logging.getLogger(__name__)

Upstream = Exchange | Failover | SideBySide


class Fallback:
    """A context like ``Exchange``: entering it gives that of the model that answers."""

    def __init__(
        self,
        ask: Callable[[Asked, Model], Upstream],
        balancer_of: Callable[[Model], Balancer],
        asked: Asked,
        model: Model,
        delivery: Delivery,
        observation: Observation,
        metrics: Metrics,
        client_left: Callable[[], bool],
    ) -> None:
        """Prepare the request for ``model``; nothing is sent yet. ``delivery`` says who else may be asked, and was."""
        self._ask = ask
        self._balancer_of = balancer_of
        self._asked = asked
        self._model = model
        self._delivery = delivery
        self._observation = observation
        self._metrics = metrics
        self._client_left = client_left
        self._left = deque(delivery.fallbacks)
        self._is_moot: Callable[[], bool] | None = None
        self._upstream: Upstream | None = None

    def end_when(self, is_moot: Callable[[], bool]) -> None:
        """Raise ClientGone in the task as soon as nobody wants the answer any more."""
        self._is_moot = is_moot

    async def __aenter__(self) -> Exchange | SideBySide:
        """Ask until a model answers, or none is left that may be asked."""
        asked, model, served = self._asked, self._model, self._delivery.served
        while True:
            asked_before = self._observation.attempts or 0
            upstream = self._ask(asked, model)
            if self._is_moot is not None:
                upstream.end_when(self._is_moot)
            if isinstance(upstream, SideBySide):
                upstream.asked_before = asked_before
                offer = await self._enter_side_by_side(upstream, model)
                entered: Exchange | SideBySide = upstream
            else:
                offer = None
                try:
                    entered = await upstream.__aenter__()
                except ProxyError:
                    self._observation.attempts = served.attempts = served.attempts + asked_before
                    offer = self._another(upstream.elsewhere if isinstance(upstream, Failover) else None, model)
                    if offer is None:
                        raise
                else:
                    served.attempts += asked_before
            self._observation.attempts = served.attempts
            if offer is None:
                self._upstream = upstream
                return entered
            self._delivery.ask_instead(offer)
            asked, model = offer.asked, offer.model

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave that of the model that answered."""
        if self._upstream is not None:
            await self._upstream.__aexit__(kind, error, trace)

    async def _enter_side_by_side(self, upstream: SideBySide, model: Model) -> Offer | None:
        """Send all of them; whom to ask instead where each has failed, and has been left."""
        await upstream.__aenter__()
        try:
            offer = self._another(await upstream.why_elsewhere(), model)
        except BaseException as error:
            await upstream.__aexit__(type(error), error, error.__traceback__)
            raise
        if offer is not None:
            await upstream.__aexit__(None, None, None)
        return offer

    def _another(self, reason: str | None, model: Model) -> Offer | None:
        """The next that can take the request now, where ``model`` has failed for a reason that lets it."""
        if reason is None or self._client_left():
            return None
        now_s, key_id = monotonic(), self._observation.key_id
        while self._left and not self._balancer_of(self._left[0].model).has_another(now_s, key_id, frozenset()):
            self._left.popleft()
        if not self._left:
            return None
        if reason != NOBODY:
            if not self._balancer_of(model).budget.take(now_s):
                self._metrics.retry_over_budget()
                return None
            self._metrics.retried(reason)
        offer = self._left.popleft()
        self._metrics.fell_back(self._model.id, offer.model.id)
        logger.info("%s: %s: %s, %s is asked", self._observation.request_id, model.id, reason, offer.model.id)
        return offer
