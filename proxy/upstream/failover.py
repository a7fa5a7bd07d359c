"""One request to a model that has several deployments: tried at one after the other, where that is safe.

A request is sent again only where nothing can have been generated for it:

- no connection could be had, or there were no credentials, so nothing was sent;
- the provider refused it itself, by a 429 or a 503, or refuses the gateway's account;
- by a setting of the provider, after a 502 or where the answer is late. Neither proves that nothing was made: a 502
  often comes from a balancer in front of a server that is still drawing, and an answer is late because it is drawn.

Everything else, such as a connection that broke after the request was written, goes to the client as it is.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from http import HTTPStatus
from time import monotonic
from types import TracebackType

from proxy.domain.billing.settlement import Served
from proxy.domain.catalog import Model
from proxy.domain.errors import (
    ClientGone,
    NoConnectionLeft,
    NoCredentials,
    ProviderOutOfCredit,
    ProviderRefusal,
    ProxyError,
    UpstreamError,
    UpstreamRateLimit,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from proxy.domain.requests.chat import ChatRequest
from proxy.domain.requests.image import ImageRequest
from proxy.telemetry.metrics import Metrics
from proxy.telemetry.observation import Observation
from proxy.upstream.breaker import Result
from proxy.upstream.client import ProviderClient
from proxy.upstream.exchange import Exchange, ask
from proxy.upstream.provider import Provider
from proxy.upstream.routing import Attempt, Balancer

logger = logging.getLogger(__name__)

NOBODY = "no_deployment"
"""Every deployment is closed, paused or full: nothing was sent."""


def why_again(error: BaseException, status: int, provider: Provider) -> str | None:
    """Why a request that ended by ``error`` may be sent to another deployment; None where it may not.

    ``status`` is the provider's, 0 where no answer began; one that an error within a 2xx names counts instead.
    """
    if not isinstance(error, ProxyError) or isinstance(error, ClientGone):
        return None
    if isinstance(error, UpstreamUnreachable):
        return "no_connection_left" if isinstance(error, NoConnectionLeft) else "unreachable"
    late = status == 0 and isinstance(error, UpstreamTimeout)
    if isinstance(error, ProviderOutOfCredit):
        return "out_of_credit"
    if isinstance(error, NoCredentials):
        return "no_credentials"
    status = error.reported_status or status
    reasons = {
        HTTPStatus.TOO_MANY_REQUESTS: "rate_limited",
        HTTPStatus.SERVICE_UNAVAILABLE: "unavailable",
        HTTPStatus.BAD_GATEWAY: "bad_gateway" if provider.retry_bad_gateway else None,
        0: "late_first_byte" if late and provider.retry_late_first_byte else None,
    }
    return reasons.get(status)


_RESULTS: Sequence[tuple[type[ProxyError], Result]] = (
    (NoConnectionLeft, Result.NEITHER),
    (ProviderOutOfCredit, Result.OUT_OF_CREDIT),
    (NoCredentials, Result.UNREACHABLE),
    (UpstreamRateLimit, Result.RATE_LIMITED),
    (UpstreamUnreachable, Result.UNREACHABLE),
    (UpstreamError, Result.FAILED),
    (UpstreamTimeout, Result.FAILED),
)
"""The first kind that an error is of counts."""


def result_of(error: BaseException | None, status: int) -> Result:
    """What an attempt that ended by ``error`` says about its deployment."""
    if error is None or isinstance(error, ProviderRefusal):
        return Result.OK
    if status == HTTPStatus.TOO_MANY_REQUESTS and not isinstance(error, ProviderOutOfCredit):
        return Result.RATE_LIMITED
    # One that was not asked, whose client left, or that the gateway has stopped, has not shown what it can.
    return next((result for kind, result in _RESULTS if isinstance(error, kind)), Result.NEITHER)


class Failover:
    """A context like ``Exchange``: entering it gives the exchange of the deployment that answered."""

    def __init__(
        self,
        client_of: Callable[[str], ProviderClient],
        balancer: Balancer,
        asked: ImageRequest | ChatRequest,
        model: Model,
        served: Served,
        observation: Observation,
        metrics: Metrics,
        client_left: Callable[[], bool],
    ) -> None:
        """Prepare the request; nothing is sent yet. One whose client has left is not sent again."""
        self.elsewhere: str | None = None
        """Once it has failed: why another model may be asked. None where it may not."""

        self._client_of = client_of
        self._balancer = balancer
        self._asked = asked
        self._model = model
        self._served = served
        self._observation = observation
        self._key_id = observation.key_id
        self._metrics = metrics
        self._client_left = client_left
        self._is_moot: Callable[[], bool] | None = None
        self._exchange: Exchange | None = None
        self._attempt: Attempt | None = None
        self._waited_before_s = 0.0

    def end_when(self, is_moot: Callable[[], bool]) -> None:
        """Raise ClientGone in the task as soon as nobody wants the answer any more."""
        self._is_moot = is_moot

    async def __aenter__(self) -> Exchange:
        """Send the request until a deployment answers with a 2xx, or none is left that may be asked."""
        self._count(0)
        self._balancer.budget.request()
        attempt = self._balancer.begin(monotonic(), self._key_id)
        if attempt is None:
            self.elsewhere = NOBODY
            raise self._nobody()
        tried = frozenset({attempt.target.index})
        while True:
            exchange = self._prepare(attempt, len(tried))
            try:
                entered = await exchange.__aenter__()
            except BaseException as error:
                self._end(attempt, error, exchange.retry_after_s)
                # What has been accepted is being drawn.
                another = None if self._served.is_accepted else self._another(error, exchange.client.provider, tried)
                if another is None:
                    self._wait_for_the_first(error, attempt)
                    raise
                attempt = another
                tried |= {attempt.target.index}
                continue
            self._attempt, self._exchange = attempt, entered
            return entered

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the connection back, and note how the deployment did."""
        exchange, attempt = self._exchange, self._attempt
        if exchange is None or attempt is None:
            return
        self._attempt = None
        try:
            await exchange.__aexit__(kind, error, trace)
        except BaseException as interruption:
            self._end(attempt, interruption)
            raise
        # An answer that is not whole, and that no error reports, has been cut before the client's eyes.
        reported = exchange.failure or error
        self._end(attempt, reported, broken=reported is None and not exchange.is_whole)

    def _prepare(self, attempt: Attempt, number: int) -> Exchange:
        self._served.status = 0
        self._waited_before_s = self._observation.provider_s
        try:
            client = self._client_of(attempt.target.deployment.provider)
            model = self._balancer.models[attempt.target.index]
            exchange = ask(client, self._asked, model, self._served, self._observation)
        except BaseException:
            # Nothing was sent, so nothing is counted.
            self._balancer.end(attempt, monotonic(), Result.NEITHER)
            raise
        self._count(number)
        if self._is_moot is not None:
            exchange.watchdog.end_when(self._is_moot)
        return exchange

    def _another(self, error: BaseException, provider: Provider, tried: frozenset[int]) -> Attempt | None:
        reason = why_again(error, self._served.status, provider)
        if reason is None or self._client_left():
            return None
        now_s = monotonic()
        if not self._balancer.has_another(now_s, self._key_id, tried):
            self.elsewhere = reason
            return None
        if not self._balancer.budget.take(now_s):
            self._metrics.retry_over_budget()
            return None
        self._metrics.retried(reason)
        logger.info("%s: %s: %s, tried elsewhere", self._observation.request_id, provider.name, reason)
        return self._balancer.begin(now_s, self._key_id, tried)

    def _count(self, attempts: int) -> None:
        self._observation.attempts = self._served.attempts = attempts

    def _end(
        self,
        attempt: Attempt,
        error: BaseException | None,
        retry_after_s: int | None = None,
        *,
        broken: bool = False,
    ) -> None:
        status = self._served.status
        said = error.reported_status if isinstance(error, ProxyError) and error.reported_status else status
        result = Result.FAILED if broken else result_of(error, status)
        if isinstance(error, ProxyError) and error.retry_after_s is not None:
            # The provider may have said so in its body.
            retry_after_s = error.retry_after_s
        if result is Result.RATE_LIMITED:
            retry_after_s = 1 if retry_after_s is None else retry_after_s
        elif said != HTTPStatus.SERVICE_UNAVAILABLE:
            retry_after_s = None
        self._balancer.end(attempt, monotonic(), result, retry_after_s)
        waited_s = self._observation.provider_s - self._waited_before_s
        self._metrics.attempted(attempt.target.deployment.provider, self._model.id, result.value, status, waited_s)

    def _wait_for_the_first(self, error: BaseException, attempt: Attempt) -> None:
        """A rate limit asks the client to wait for the deployment that asked for it; another may be back before."""
        if isinstance(error, UpstreamRateLimit) and error.retry_after_s is not None:
            others_s = self._balancer.available_in_s(monotonic(), self._key_id, besides=attempt.target)
            if others_s < error.retry_after_s:
                error.retry_after_s = max(1, math.ceil(others_s))

    def _nobody(self) -> ProxyError:
        """Nothing is sent, so nothing is charged."""
        now_s = monotonic()
        wait_s = max(1, math.ceil(self._balancer.available_in_s(now_s, self._key_id)))
        if self._balancer.all_paused(now_s, self._key_id):
            return UpstreamRateLimit(
                "Every provider of this model is rate-limiting this gateway; nothing was charged. Try again later.",
                retry_after_s=wait_s,
            )
        return UpstreamUnreachable(
            "No deployment of this model can take a request now; nothing was charged. Try again later.",
            retry_after_s=wait_s,
        )
