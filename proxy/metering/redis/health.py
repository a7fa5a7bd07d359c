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


BY_WORDS = {
    "without any password configured": "it has no password; leave that in store.url out",
    "DB index is out of range": "it has fewer databases; name a lower number in store.url",
    "unknown command": "it runs no scripts; where it is a Sentinel, store.url is redis+sentinel://host/service",
    "CERTIFICATE_VERIFY_FAILED": "whom its certificate is of, or by, is not what was expected; ssl_ca_certs names an "
    "authority of your own",
    "[SSL": "TLS does not come about; where it speaks none on that port, store.url is redis://",
    "connection was closed": "where it speaks TLS on that port, store.url is rediss://",
    "Connect call failed": "nothing listens there; see to it that it runs, and at that port",
    "Connection refused": "nothing listens there; see to it that it runs, and at that port",
    "o such file or directory": "there is no such socket; see to it that it runs, and where it has it",
    "Name or service not known": "no host has that name",
    "emporary failure in name resolution": "no host has that name, or no name server answers",
    "no connection within": "nobody answers there, or not in this way (redis:// is without TLS, rediss:// with it); "
    "look at the address, and at the firewalls between",
    "no answer": "it is busy, or what listens there is no store",
    "No master found": "look at the service's name, and whether the sentinels watch it",
}
"""Advice by what an error says; the first that fits."""


def advice_for(error: str) -> str:
    """What to do about an error of the store, or of the way to it; empty where nobody knows."""
    known = ADVICE.get(error.partition(" ")[0])
    return known or next((advice for words, advice in BY_WORDS.items() if words in error), "")


def _in_words(error: str) -> str:
    advice = advice_for(error)
    return f"{error}: {advice}" if advice else error


class StoreHealth:
    """What all connections to one store have seen last."""

    def __init__(self, metrics: Metrics, name: str = "the store", tell: Callable[[bool], None] | None = None) -> None:
        """Begin well: nothing has been asked yet. ``tell`` is told when that changes, in place of ``metrics``."""
        self._metrics = metrics
        self._name = name
        self._tell = tell
        self._told: dict[str, float] = {}
        self.healthy = True
        self.why = ""
        """Why the last call was not taken, and what to do about it."""

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
            advice = advice_for(str(error))
            logger.error(
                "%s cannot be reached (%r)%s: requests get 503 until it can",
                *(self._name, error, advice and f": {advice}"),
            )
        self.why = _in_words(str(error) or repr(error))

    def refused(self, script: str, refusal: str) -> None:
        """The store answered a call of ``script`` with an error of its own."""
        code = refusal.partition(" ")[0]
        self._set(healthy=False)
        self.why = _in_words(refusal)
        if self.may_log(code):
            advice = advice_for(refusal) or "see its log"
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
