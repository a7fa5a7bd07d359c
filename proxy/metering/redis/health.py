"""Whether the store takes calls, logged once for each time that it changes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from proxy.telemetry.metrics import Metrics

logger = logging.getLogger(__name__)

SILENCE_S = 10.0
"""Between two lines in the log about the same refusal."""

ADVICE = {
    "OOM": "its memory is full; raise its maxmemory, or free some of it",
    "READONLY": "it is a replica; point store.url at the primary",
    "LOADING": "it is reading its data, and will answer when it has",
    "MISCONF": "it cannot write to its disk; look at its log, and at the space there",
    "NOAUTH": "it wants a password; put it into store.url",
    "WRONGPASS": "the password in store.url is wrong",
    "NOPERM": "its user may not run scripts on keys that begin with lm: ; allow it",
    "NOREPLICAS": "too few of its replicas are connected",
    "MOVED": "it is a node of a Cluster; set store.url to redis+cluster://",
    "CLUSTERDOWN": "slots have no primary, and with cluster-require-full-coverage yes no slot is served then",
    "TRYAGAIN": "a slot has been half moved for long; see whether its move goes on",
    "BUSY": "another script has kept it busy for long; SCRIPT KILL ends that",
}


class StoreHealth:
    """What all connections to one store have seen last."""

    def __init__(self, metrics: Metrics, name: str = "the store", tell: Callable[[bool], None] | None = None) -> None:
        """Begin well: nothing has been asked yet. ``tell`` is told when that changes, in place of ``metrics``."""
        self._metrics = metrics
        self._name = name
        self._tell = tell
        self._told: dict[str, float] = {}
        self.healthy = True

    def answered(self) -> None:
        """The store took a call."""
        if not self.healthy:
            self._set(healthy=True)
            if self.may_log("again"):
                logger.warning("%s answers again", self._name)

    def failed(self, error: Exception) -> None:
        """The store could not be reached, or did not answer."""
        if self.healthy:
            self._set(healthy=False)
            advice = ADVICE.get(str(error).partition(" ")[0], "")
            logger.error(
                "%s cannot be reached (%r)%s: requests get 503 until it can",
                *(self._name, error, advice and f": {advice}"),
            )

    def refused(self, script: str, refusal: str) -> None:
        """The store answered a call of ``script`` with an error of its own."""
        code = refusal.partition(" ")[0]
        self._set(healthy=False)
        if self.may_log(code):
            advice = ADVICE.get(code, "see its log")
            logger.error(
                "%s refused the script %s (%s): %s. Requests get 503 until then",
                *(self._name, script, refusal, advice),
            )

    def may_log(self, what: str) -> bool:
        """Whether the log has had no line about ``what`` for a while; the caller writes one then."""
        now = asyncio.get_running_loop().time()
        if now - self._told.get(what, -SILENCE_S) < SILENCE_S:
            return False
        self._told[what] = now
        return True

    def _set(self, *, healthy: bool) -> None:
        self.healthy = healthy
        if self._tell is None:
            self._metrics.store_health(healthy=healthy)
        else:
            self._tell(healthy)
