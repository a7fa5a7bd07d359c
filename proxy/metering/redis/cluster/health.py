"""Whether each node of a Cluster takes calls, and whether all of them do."""

from __future__ import annotations

from functools import partial

from proxy.metering.redis.health import StoreHealth
from proxy.metering.redis.hosts import Place
from proxy.telemetry.metrics import Metrics


class ClusterHealth:
    """The store is up where each of its nodes is: somebody's requests get 503 otherwise."""

    def __init__(self, metrics: Metrics) -> None:
        """Begin well, without nodes."""
        self._metrics = metrics
        self._is_well: dict[str, bool] = {}

    def of_all(self) -> StoreHealth:
        """What is seen before any node is known."""
        return StoreHealth(self._metrics, "the Cluster at store.url", partial(self._tell, ""))

    def of_node(self, place: Place) -> StoreHealth:
        """What is seen of one node."""
        name = _name(place)
        self._metrics.store_node_health(name, healthy=True)
        return StoreHealth(self._metrics, f"the store's node {name}", partial(self._tell, name))

    def forget(self, place: Place) -> None:
        """It is no node of the Cluster any more."""
        self._metrics.store_node_left(_name(place))
        self._tell_store(_name(place), healthy=True)

    def known(self) -> None:
        """The nodes have been found."""
        self._tell_store("", healthy=True)

    def _tell(self, name: str, healthy: bool) -> None:
        if name:
            self._metrics.store_node_health(name, healthy=healthy)
        self._tell_store(name, healthy=healthy)

    def _tell_store(self, name: str, *, healthy: bool) -> None:
        self._is_well[name] = healthy
        self._metrics.store_health(healthy=all(self._is_well.values()))


def _name(place: Place) -> str:
    host, port = place
    return f"{host}:{port}"
