from __future__ import annotations

import logging
from pathlib import Path

import pytest
from redis.asyncio import Redis

from proxy.metering.redis.durability import DurabilityReport, StoreFacts, judge, read_facts
from proxy.metering.redis.pool import open_server_pool
from tests.support.polling import eventually
from tests.support.stores import store_server

SAFE = StoreFacts(
    appendonly=True, appendfsync="always", snapshots=False, maxmemory=0, maxmemory_policy="noeviction", replicas=0
)


@pytest.mark.parametrize(
    ("facts", "min_replicas", "levels", "words"),
    [
        (SAFE, 0, "i", ["loses nothing that it acknowledged"]),
        (StoreFacts(appendonly=True, appendfsync="everysec"), 0, "i", ["may lose its last second or two"]),
        (StoreFacts(appendonly=True, appendfsync="no"), 0, "e", ["half a minute", "set appendfsync everysec"]),
        (StoreFacts(appendonly=False, snapshots=True), 0, "e", ["all since the last snapshot", "set appendonly yes"]),
        (StoreFacts(appendonly=False, snapshots=False), 0, "e", ["loses everything"]),
        (StoreFacts(appendonly=True), 0, "i", ["does not report appendfsync"]),
        (StoreFacts(), 0, "w", ["does not report how it keeps its data", "appendonly is yes"]),
        (
            StoreFacts(appendonly=True, appendfsync="always", maxmemory=1_000, maxmemory_policy="allkeys-lru"),
            0,
            "ie",
            ["throws keys, quota and ledger away", "noeviction"],
        ),
        (
            StoreFacts(appendonly=True, appendfsync="always", maxmemory=1_000, maxmemory_policy="volatile-ttl"),
            0,
            "iw",
            ["forgets which requests were settled", "noeviction"],
        ),
        (
            StoreFacts(appendonly=True, appendfsync="always", maxmemory=1_000, maxmemory_policy="noeviction"),
            0,
            "ii",
            ["maxmemory is 1,000 bytes", "settlements wait in the journal"],
        ),
        (
            StoreFacts(appendonly=True, appendfsync="always", maxmemory=0, maxmemory_policy="allkeys-lru"),
            0,
            "i",
            ["loses nothing"],
        ),
        (StoreFacts(appendonly=True, appendfsync="always", is_replica=True), 0, "ie", ["point it at its primary"]),
        (StoreFacts(appendonly=True, appendfsync="always", replicas=1), 0, "ii", ["fail-over may lose"]),
        (StoreFacts(appendonly=True, appendfsync="always", replicas=1), 1, "i", ["loses nothing"]),
        (
            StoreFacts(appendonly=True, appendfsync="always", replicas=1),
            2,
            "ie",
            ["store.min_replicas is 2 and 1 replica(s)"],
        ),
    ],
)  # fmt: skip
def test_unit_what_may_be_lost(facts: StoreFacts, min_replicas: int, levels: str, words: list[str]) -> None:
    findings = list(judge(facts, min_replicas=min_replicas))
    by_letter = {"i": logging.INFO, "w": logging.WARNING, "e": logging.ERROR}
    assert [finding.level for finding in findings] == [by_letter[letter] for letter in levels]
    told = " ".join(finding.text for finding in findings)
    assert [word for word in words if word not in told] == []


@pytest.mark.parametrize("backend", ["valkey", "redis"])
async def test_a_server_is_asked(backend: str, tmp_path: Path) -> None:
    flags = (
        "--appendonly",
        "yes",
        "--appendfsync",
        "always",
        "--maxmemory",
        "100mb",
        "--maxmemory-policy",
        "allkeys-lfu",
    )
    with store_server(backend, tmp_path, *flags) as (url, _server):
        pool = open_server_pool(url, timeout_s=20)
        assert await read_facts(Redis(connection_pool=pool)) == StoreFacts(
            appendonly=True,
            appendfsync="always",
            snapshots=False,
            maxmemory=104_857_600,
            maxmemory_policy="allkeys-lfu",
        )
        await pool.aclose()


@pytest.mark.parametrize("backend", ["valkey", "redis"])
async def test_a_server_that_forbids_the_question_is_asked_otherwise(backend: str, tmp_path: Path) -> None:
    with store_server(backend, tmp_path, "--appendonly", "yes", "--rename-command", "CONFIG", "") as (url, _server):
        pool = open_server_pool(url, timeout_s=20)
        facts = await read_facts(Redis(connection_pool=pool))
        await pool.aclose()
    assert facts == StoreFacts(appendonly=True, appendfsync=None, maxmemory=0, maxmemory_policy="noeviction")


async def test_it_is_told_in_the_log_as_soon_as_the_store_can_be_asked(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.metering.redis.durability.RETRY_S", 0.02)
    with store_server("valkey", tmp_path) as (url, _server):
        pool = open_server_pool(url, timeout_s=20)
        redis: Redis = Redis(connection_pool=pool)
        await redis.config_set("requirepass", "secret")
        wrong = open_server_pool(url, timeout_s=20)
        report = DurabilityReport(wrong, min_replicas=0)
        report.start()
        await redis.config_set("requirepass", "")
        await eventually(lambda: "store: appendonly is no: a crash of the store loses everything" in caplog.text)
        await report.stop()
        assert caplog.text.count("store: appendonly is no") == 1
        await pool.aclose()
        await wrong.aclose()
