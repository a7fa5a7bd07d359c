"""Whether the store takes calls, logged once for each time that it changes."""

from __future__ import annotations

import asyncio
import logging

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
    "BUSY": "another script has kept it busy for long; SCRIPT KILL ends that",
}


class StoreHealth:
    """What all connections to one store have seen last."""

    def __init__(self, metrics: Metrics) -> None:
        """Begin well: nothing has been asked yet."""
        self._metrics = metrics
        self._told: dict[str, float] = {}
        self.healthy = True

    def answered(self) -> None:
        """The store took a call."""
        if not self.healthy:
            self._set(healthy=True)
            if self.may_log("again"):
                logger.warning("the store answers again")

    def failed(self, error: Exception) -> None:
        """The store could not be reached, or did not answer."""
        if self.healthy:
            self._set(healthy=False)
            advice = ADVICE.get(str(error).partition(" ")[0], "")
            logger.error(
                "the store cannot be reached (%r)%s: requests get 503 until it can", error, advice and f": {advice}"
            )

    def refused(self, script: str, refusal: str) -> None:
        """The store answered a call of ``script`` with an error of its own."""
        code = refusal.partition(" ")[0]
        self._set(healthy=False)
        if self.may_log(code):
            advice = ADVICE.get(code, "see its log")
            logger.error(
                "the store refused the script %s (%s): %s. Requests get 503 until then", script, refusal, advice
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
        self._metrics.store_health(healthy=healthy)
