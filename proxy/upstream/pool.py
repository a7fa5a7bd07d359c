"""All providers and their deployments: who is asked for a model, also while the configuration is read again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import replace
from time import monotonic, time
from typing import TypeGuard

from proxy.domain.answers.images.joined import JoinedImages
from proxy.domain.answers.images.writing import ImagesHead, settings_asked
from proxy.domain.billing.pending import PendingTask
from proxy.domain.billing.settlement import Delivery, Served
from proxy.domain.catalog import Model
from proxy.domain.errors import TaskUnknown, UpstreamUnreachable
from proxy.domain.requests.image import ImageRequest
from proxy.machine.limits import SharedLimits
from proxy.telemetry.metrics import Metrics
from proxy.telemetry.observation import Observation
from proxy.upstream.client import ProviderClient
from proxy.upstream.connection.client import RequestTraces
from proxy.upstream.dialects import RAW_DIALECTS
from proxy.upstream.dialects.polled import POLLED_DIALECTS
from proxy.upstream.exchange import Asked, Exchange, ask
from proxy.upstream.failover import Failover
from proxy.upstream.fallback import Fallback
from proxy.upstream.polled.client import PolledClient
from proxy.upstream.provider import Provider
from proxy.upstream.raw.client import RawClient
from proxy.upstream.routing import Balancer
from proxy.upstream.side_by_side import OneOfSeveral, SideBySide
from proxy.upstream.watchdog import Watch

logger = logging.getLogger(__name__)

RETIRE_AFTER_S = 60.0
RETIRE_LOOK_S = 1.0


def is_side_by_side(asked: Asked, model: Model, n: int) -> TypeGuard[ImageRequest]:
    """Whether ``n`` images are more than the model makes at once."""
    return isinstance(asked, ImageRequest) and model.images_at_once is not None and n > model.images_at_once


class Pool:
    """All providers, and how the deployments of each model are doing."""

    def __init__(
        self,
        providers: Iterable[Provider],
        models: Iterable[Model],
        metrics: Metrics,
        *,
        traces: RequestTraces | None = None,
        shows_tokens: bool = False,
        limits: SharedLimits | None = None,
    ) -> None:
        """One client for each provider, traced by ``traces``; needs a running event loop.

        Clients see the providers' token counts where ``shows_tokens``. Where other processes serve beside this one,
        ``limits`` hold over all of them.
        """
        self._limits = limits
        self._shows_tokens = shows_tokens
        self._watch = Watch()
        self._traces = traces
        self._clients: dict[str, ProviderClient] = {}
        self._balancers: dict[str, Balancer] = {}
        self._retiring: dict[ProviderClient, asyncio.Task[None]] = {}
        self._metrics = metrics
        self.replace(providers, models)
        metrics.before_render(self._report_states)

    def replace(self, providers: Iterable[Provider], models: Iterable[Model]) -> None:
        """Ask these from now on. Those that stay as they are keep their connections and what is known of them.

        One that has gone can be asked for a minute more, by requests that were admitted before, and is closed when
        nothing of it is in use.
        """
        wanted = {provider.name: provider for provider in providers}
        for name, client in list(self._clients.items()):
            if wanted.get(name) != client.provider:
                self._retire(client)
        for name, provider in wanted.items():
            self._clients[name] = self._client_of(provider)
            self._metrics.has_provider(name)
        deployed = {model.id: model for model in models if model.deployments}
        self._balancers = {model_id: self._balancer_of(model) for model_id, model in deployed.items()}

    def ask(
        self,
        asked: Asked,
        model: Model,
        served: Served,
        observation: Observation,
        client_left: Callable[[], bool],
    ) -> Exchange | Failover:
        """Ask the model's provider, or one of its deployments, and others where that one cannot answer."""
        if not model.deployments:
            return ask(self.client(model.provider), asked, model, served, observation)
        balancer = self._balancer_of(model)
        return Failover(self.client, balancer, asked, model, served, observation, self._metrics, client_left)

    def ask_one_of(
        self,
        asked: Asked,
        model: Model,
        n: int,
        delivery: Delivery,
        observation: Observation,
        client_left: Callable[[], bool],
    ) -> Fallback:
        """Ask the model for ``n`` images, or one of the delivery's ``fallbacks`` where it cannot answer."""

        def ask_model(asked: Asked, model: Model) -> Exchange | Failover | SideBySide:
            if is_side_by_side(asked, model, n):
                return self.ask_side_by_side(asked, model, n, delivery.served, observation, client_left)
            return self.ask(asked, model, delivery.served, observation, client_left)

        given = (asked, model, delivery, observation, self._metrics, client_left)
        return Fallback(ask_model, self._balancer_of, *given)

    def ask_side_by_side(
        self,
        asked: ImageRequest,
        model: Model,
        n: int,
        served: Served,
        observation: Observation,
        client_left: Callable[[], bool],
    ) -> SideBySide:
        """As ``ask``, for ``n`` images of a model that makes fewer at once: in so many requests as that takes."""
        most = model.images_at_once or n
        requests = []
        for start in range(0, n, most):
            part = replace(asked, n=min(most, n - start), fields={**asked.fields, "n": min(most, n - start)})
            own = Observation(observation.request_id, observation.endpoint, key_id=observation.key_id, model=model.id)
            by = Served(keeper=served.keeper)
            requests.append(OneOfSeveral(self.ask(part, model, by, own, client_left), by))
        head = ImagesHead(int(time()), asked.task.value, settings_asked(asked.fields), shows_tokens=self._shows_tokens)
        return SideBySide(requests, JoinedImages(head, stream=asked.stream), served, observation)

    def client(self, name: str) -> ProviderClient:
        """The provider of this name. Raises UpstreamUnreachable where it has gone since the request was admitted."""
        client = self._clients.get(name)
        if client is None:
            raise UpstreamUnreachable("The provider of this model is no longer configured; nothing was charged.")
        return client

    async def follow(self, task: PendingTask, *, cancel: bool) -> int:
        """Follow a task that another process has left to its end; the number of images that were made.

        One that is still at work is cancelled first where ``cancel``. Raises TaskUnknown where nobody can say how it
        ended, or the error that it ended by.
        """
        client = self._clients.get(task.provider)
        if not isinstance(client, PolledClient):
            logger.error("a task is pending at provider %s, which is no longer configured to be polled", task.provider)
            raise TaskUnknown
        return await client.finish(task, cancel=cancel)

    async def close(self) -> None:
        """Close every connection to every provider."""
        retiring = dict(self._retiring)
        for task in retiring.values():
            task.cancel()
        await asyncio.gather(*retiring.values(), return_exceptions=True)
        for client in {*self._clients.values(), *retiring}:
            await client.close()

    def _client_of(self, provider: Provider) -> ProviderClient:
        """The client that is there, or one that was going, or a new one."""
        known = self._clients.get(provider.name)
        for client in (known, *self._retiring):
            if client is not None and client.provider == provider and not client.http.closed:
                going = self._retiring.pop(client, None)
                if going is not None:
                    going.cancel()
                return client
        kind: type[ProviderClient] = ProviderClient
        if provider.dialect in POLLED_DIALECTS:
            kind = PolledClient
        elif provider.dialect in RAW_DIALECTS:
            kind = RawClient
        made = kind(provider, self._watch, self._metrics, self._traces, shows_tokens=self._shows_tokens)
        if self._limits is not None:
            made.share_connections(self._limits)
        return made

    def _retire(self, client: ProviderClient) -> None:
        if client not in self._retiring:
            self._retiring[client] = asyncio.create_task(self._close_when_unused(client))

    async def _close_when_unused(self, client: ProviderClient) -> None:
        await asyncio.sleep(RETIRE_AFTER_S)
        while client.in_use:  # noqa: ASYNC110 - requests only count; nobody waits for this
            await asyncio.sleep(RETIRE_LOOK_S)
        if self._clients.get(client.provider.name) is client:
            del self._clients[client.provider.name]
        try:
            await client.close()
        finally:
            self._retiring.pop(client, None)

    def _balancer_of(self, model: Model) -> Balancer:
        balancer = self._balancers.get(model.id)
        # Where the models were replaced while a request was admitted, it still goes where its own model is made.
        if balancer is not None and balancer.model == model:
            return balancer
        limits = self._limits
        if limits is None:
            return Balancer(model)
        return Balancer(
            model, share=lambda one: limits.count(f"in flight:{one.provider}:{one.upstream_model}:{model.id}")
        )

    def _report_states(self) -> None:
        now_s = monotonic()
        self._metrics.deployment_states(
            {
                (provider, model_id): state
                for model_id, balancer in self._balancers.items()
                for provider, state in balancer.states(now_s)
            }
        )
