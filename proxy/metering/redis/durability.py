"""What the store may lose, as its own settings have it: read at the start, and logged in plain words.

See https://redis.io/docs/latest/operate/oss_and_stack/management/persistence/ and, for ``maxmemory-policy``,
https://redis.io/docs/latest/develop/reference/eviction/
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from proxy.domain.errors import StoreUnavailable
from proxy.metering.redis.cluster.reads import ClusterReads
from proxy.metering.redis.pool import StorePool
from proxy.metering.tasks import end_task

logger = logging.getLogger(__name__)

RETRY_S = 5.0
SETTINGS = ("appendonly", "appendfsync", "save", "maxmemory", "maxmemory-policy", "cluster-require-full-coverage")


@dataclass(frozen=True, slots=True)
class StoreFacts:
    """How a store keeps its data; None where it would not say. ``maxmemory`` is in bytes, 0 for no limit."""

    appendonly: bool | None = None
    appendfsync: str | None = None
    snapshots: bool | None = None
    maxmemory: int | None = None
    maxmemory_policy: str | None = None
    is_replica: bool = False
    replicas: int = 0
    needs_all_slots: bool = False


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing to know. ``level`` is one of logging's: INFO, WARNING or ERROR."""

    level: int
    text: str
    refuses: bool = False
    """Whether no request could be admitted."""


def judge(facts: StoreFacts, *, min_replicas: int = 0) -> Iterator[Finding]:
    """What a store with these settings may lose, the worst of it as errors."""
    yield _persistence(facts)
    yield from _memory(facts)
    if facts.is_replica:
        text = "store.url: the store is a replica and takes no writes: point it at its primary"
        yield Finding(logging.ERROR, text, refuses=True)
    elif min_replicas > facts.replicas:
        yield Finding(
            logging.ERROR,
            f"store.min_replicas is {min_replicas} and {facts.replicas} replica(s) are connected: "
            "every request gets 503 until there are enough",
            refuses=True,
        )
    elif facts.replicas and not min_replicas:
        yield Finding(
            logging.INFO,
            "fail-over may lose what was not replicated yet: store.min_replicas makes each admission wait for replicas",
        )


def _persistence(facts: StoreFacts) -> Finding:
    if facts.appendonly is None:
        return Finding(
            logging.WARNING,
            "the store does not report how it keeps its data (it forbids CONFIG GET): "
            "see to it that appendonly is yes, and appendfsync always or everysec",
        )
    if not facts.appendonly:
        lost = "all since the last snapshot" if facts.snapshots or facts.snapshots is None else "everything"
        return Finding(
            logging.ERROR, f"appendonly is no: a crash of the store loses {lost}, quota and ledger: set appendonly yes"
        )
    if facts.appendfsync == "always":
        return Finding(
            logging.INFO, "appendonly yes, appendfsync always: a crash of the store loses nothing that it acknowledged"
        )
    if facts.appendfsync == "everysec":
        return Finding(
            logging.INFO,
            "appendonly yes, appendfsync everysec: a crash of the store's machine may lose its last second or two; "
            "gateways that live post again what they settled then. appendfsync always loses nothing",
        )
    if facts.appendfsync == "no":
        return Finding(
            logging.ERROR,
            "appendfsync is no: a crash of the store's machine may lose half a minute of charges: "
            "set appendfsync everysec, or always",
        )
    return Finding(
        logging.INFO,
        "appendonly yes; the store does not report appendfsync: always loses nothing, everysec seconds",
    )


def _memory(facts: StoreFacts) -> Iterator[Finding]:
    policy = facts.maxmemory_policy
    if not facts.maxmemory or policy is None:
        return
    if policy.startswith("allkeys"):
        yield Finding(
            logging.ERROR,
            f"maxmemory-policy is {policy}: a store whose memory is full throws keys, quota and ledger away: "
            "set maxmemory-policy noeviction",
        )
    elif policy.startswith("volatile"):
        yield Finding(
            logging.WARNING,
            f"maxmemory-policy is {policy}: a store whose memory is full forgets which requests were settled, "
            "and may charge one again that is posted again: set maxmemory-policy noeviction",
        )
    else:
        yield Finding(
            logging.INFO,
            f"maxmemory is {facts.maxmemory:,} bytes: when the store's memory is full, requests get 503 and "
            "settlements wait in the journal; nothing is lost",
        )


def _cluster(facts: StoreFacts) -> Iterator[Finding]:
    if facts.needs_all_slots:
        yield Finding(
            logging.WARNING,
            "cluster-require-full-coverage is yes: while any slot has no primary, the requests of every team get 503: "
            "set cluster-require-full-coverage no",
        )
    if not facts.replicas:
        yield Finding(logging.WARNING, "no replica is connected: nobody takes over when the primary is lost")


# --- Asking the store -------------------------------------------------------------------------------------------------


async def survey(pool: StorePool, *, min_replicas: int) -> list[Finding]:
    """What the store, or any node of a Cluster, may lose. Raises RedisError or OSError where it cannot be asked."""
    if not isinstance(pool, ClusterReads):
        return list(judge(await read_facts(Redis(connection_pool=pool)), min_replicas=min_replicas))
    try:
        nodes = await pool.primaries()
    except StoreUnavailable as error:
        raise ConnectionError(str(error.__cause__ or error)) from error
    # Half of it, so that whoever waits no longer than one timeout is told of those that do not answer.
    asked = await asyncio.gather(
        *(_read_facts_within(node, pool.timeout_s / 2) for node in nodes.values()), return_exceptions=True
    )
    told: dict[Finding, list[str]] = defaultdict(list)
    for (host, port), facts in zip(nodes, asked, strict=True):
        if isinstance(facts, (RedisError, OSError, RuntimeError)):
            found: Iterable[Finding] = [Finding(logging.ERROR, f"it does not answer ({str(facts) or 'in time'})")]
        elif isinstance(facts, BaseException):
            raise facts
        else:
            found = [*judge(facts, min_replicas=min_replicas), *_cluster(facts)]
        for finding in found:
            told[finding].append(f"{host}:{port}")
    return [
        finding if len(places) == len(nodes) else Finding(finding.level, f"{', '.join(sorted(places))}: {finding.text}")
        for finding, places in told.items()
    ]


async def _read_facts_within(redis: Redis, timeout_s: float) -> StoreFacts:
    async with asyncio.timeout(timeout_s):
        return await read_facts(redis)


async def read_facts(redis: Redis) -> StoreFacts:
    """What a server says of itself. Raises RedisError or OSError where it cannot be asked."""
    asked: Any = redis
    info: Mapping[str, Any] = await asked.info()
    try:
        given: Mapping[str, str] = await asked.config_get(*SETTINGS)
        named = {_text(name): _text(value) for name, value in given.items()}
    except ResponseError:
        # Managed services forbid it.
        named = {}
    aof = named.get("appendonly", {0: "no", 1: "yes"}.get(info.get("aof_enabled", -1)))
    return StoreFacts(
        appendonly=None if aof is None else aof == "yes",
        appendfsync=named.get("appendfsync"),
        snapshots=bool(named["save"]) if "save" in named else None,
        maxmemory=int(named.get("maxmemory", info.get("maxmemory", 0))),
        maxmemory_policy=named.get("maxmemory-policy", info.get("maxmemory_policy")),
        is_replica=info.get("role") == "slave",
        replicas=int(info.get("connected_slaves", 0)),
        needs_all_slots=bool(info.get("cluster_enabled")) and named.get("cluster-require-full-coverage") == "yes",
    )


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


class DurabilityReport:
    """Tells once, in the log, what the store may lose; when it can be asked, be it later."""

    def __init__(self, pool: StorePool, *, min_replicas: int) -> None:
        """Ask through ``pool``."""
        self._pool = pool
        self._min_replicas = min_replicas
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Ask, for as long as it takes."""
        self._task = asyncio.create_task(self._log_what_may_be_lost())

    async def stop(self) -> None:
        """Ask no more."""
        if self._task is not None:
            await end_task(self._task)

    async def _log_what_may_be_lost(self) -> None:
        while True:
            try:
                findings = await survey(self._pool, min_replicas=self._min_replicas)
            except (RedisError, OSError, RuntimeError):
                await asyncio.sleep(RETRY_S)
            else:
                break
        for finding in findings:
            logger.log(finding.level, "store: %s", finding.text)
