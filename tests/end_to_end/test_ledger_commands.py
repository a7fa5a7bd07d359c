"""``lightmeter ledger`` against a running gateway: verify, export, refund."""

from __future__ import annotations

import csv
import io
import json
import os
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from proxy.metering.redis_store.facts import COUNTERS
from tests.end_to_end.test_command_line import lightmeter, run
from tests.faults.scene import audit
from tests.support.gateways import (
    ADMIN_TOKEN,
    RunningGateway,
    SampleProvider,
    configuration,
    key_id,
    running_gateway,
)

KINDS = ("images=1", "images=3", "images=0", "status=500", "status=400", "truncate_after=520 images=4", "malformed")


@pytest.fixture
def books(provider: SampleProvider, tmp_path: Path) -> Iterator[RunningGateway]:
    """A gateway on a store of its own, which a test may spoil."""
    toml = configuration(f"embedded:{tmp_path}/data", provider.url, accounting={"lease_seconds": 60})
    with running_gateway(tmp_path, toml) as gateway:
        yield gateway


@pytest.fixture
def store(books: RunningGateway, tmp_path: Path) -> Iterator[Redis]:
    """The store behind it."""
    redis = Redis(unix_socket_path=str(tmp_path / "data" / "valkey.sock"))
    yield redis
    redis.close()


def environment(gateway: RunningGateway) -> dict[str, str]:
    return {"LIGHTMETER_ADMIN_URL": gateway.admin_url, "LIGHTMETER_ADMIN_TOKEN": ADMIN_TOKEN}


def verify(gateway: RunningGateway, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run("ledger", "verify", *arguments, environment=environment(gateway))


def spend(gateway: RunningGateway, team: str = "acme") -> str:
    """A key that has used some of everything."""
    key = gateway.make_key(1_000_000, team=team)
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda kind: gateway.generate(key, prompt=f"[sample {kind}] x", n=2), KINDS))
    gateway.admin("POST", f"/admin/v1/keys/{key_id(key)}/grants", body={"quota_units": 77, "reason": "=goodwill"})
    return key


def test_books_that_are_right(books: RunningGateway) -> None:
    spend(books)
    key = spend(books, "other")
    charged = next(entry for entry in books.ledger(key) if entry.get("charged"))
    done = lightmeter("ledger", "refund", charged["id"], "--reason", "a test", environment=environment(books))
    assert done.startswith(f"{charged['id']} is refunded by other_")
    again = run("ledger", "refund", charged["id"], "--reason", "a test", environment=environment(books))
    assert (again.returncode, "has been refunded already" in again.stderr) == (1, True)
    result = verify(books)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith("2 key(s) of 2 team(s), 17 ledger entries: every counter is right")
    report = json.loads(verify(books, "--team", "other", "--json").stdout)
    assert (report["ok"], report["teams"], report["entries"]) == (True, 1, 9)


Spoil = Callable[[Redis, str], object]


def spoil(store: Redis, record: str, counter: str) -> None:
    counters: Any = store.hget(record, "counters")
    values = dict(zip(COUNTERS, struct.unpack(">13q", counters), strict=True))
    values[counter] += 1
    store.hset(record, "counters", struct.pack(">13q", *values.values()))


SPOILED: list[tuple[Spoil, str]] = [
    *(
        (lambda store, key, counter=counter: spoil(store, f"lm:{{acme}}:key:{key}", counter), counter)
        for counter in ("posted", "reserved", "images", "overage", "held")
    ),
    (lambda store, _key: spoil(store, "lm:{acme}:team", "posted"), "posted"),
    (lambda store, _key: spoil(store, "lm:{acme}:team", "held"), "held"),
    (lambda store, key: spoil(store, f"lm:{{acme}}:key:{key}", "day_posted"), "{today} posted"),
    (lambda store, key: spoil(store, f"lm:{{acme}}:key:{key}", "month_reserved"), "{month} reserved"),
    (lambda store, key: store.hincrby(f"lm:{{acme}}:key:{key}", "granted", 1), "granted"),
    (lambda store, _key: store.hincrby("lm:{acme}:usage", "2026-01-01:units:x", 1), "usage 2026-01-01:units:x"),
    (lambda store, key: store.hincrby(f"lm:{{acme}}:usage:{key}", "2026-01-01:units:x", 1), "usage 2026-01-01:units:x"),
    (lambda store, _key: store.xdel("lm:{acme}:ledger", charged_entry(store)), "posted"),
    (lambda store, _key: store.xadd("lm:{acme}:ledger", fields(store, charged_entry(store))), "entries of request"),
    (lambda store, _key: store.zadd("lm:{acme}:leases", {"req_nobody": 9e12}), "reservations of the lease req_nobody"),
    (lambda store, key: store.zrem("lm:{acme}:keys", key), "keys of this id"),
]


def charged_entry(store: Redis) -> Any:
    entries: Any = store.xrange("lm:{acme}:ledger")
    return next(stream_id for stream_id, fields in entries if int(fields.get(b"charged", 0)))


def fields(store: Redis, stream_id: bytes) -> Any:
    entries: Any = store.xrange("lm:{acme}:ledger", stream_id, stream_id)
    return entries[0][1]


def test_every_kind_of_spoiled_books_is_told(books: RunningGateway, store: Redis) -> None:
    key = key_id(spend(books))
    names = [name for name in store.keys("lm:*") if store.pttl(name) < 0]
    good: dict[Any, Any] = {name: store.dump(name) for name in names}
    today = datetime.now(UTC).strftime("%Y-%m-%d")
    for harm, told in SPOILED:
        what = told.format(today=today, month=today[:7])
        harm(store, key)
        assert [each.counter for each in audit(books).differences if what in each.counter], what
        for name, dump in good.items():
            store.restore(name, 0, dump, replace=True)
        store.zrem("lm:{acme}:leases", "req_nobody")
    assert audit(books).differences == []
    spoil(store, f"lm:{{acme}}:key:{key}", "posted")
    result = verify(books)
    assert (result.returncode, "posted" in result.stdout) == (1, True)
    store.restore(f"lm:{{acme}}:key:{key}", 0, good[f"lm:{{acme}}:key:{key}".encode()], replace=True)
    assert verify(books).returncode == 0


def test_books_that_are_read_while_requests_come_in(books: RunningGateway) -> None:
    keys = [books.make_key(None, team=team) for team in ("acme", "acme", "other")]
    stop = threading.Event()

    def go_on(key: str) -> None:
        while not stop.is_set():
            books.generate(key, n=1, prompt="[sample delay_ms=20] x")

    with ThreadPoolExecutor(6) as threads:
        running = [threads.submit(go_on, key) for key in keys * 2]
        try:
            results = [verify(books) for _ in range(4)]
        finally:
            stop.set()
        for each in running:
            each.result()
    assert [(result.returncode, result.stderr) for result in results] == [(0, "")] * 4, results


def test_nobody_to_ask() -> None:
    away = {"LIGHTMETER_ADMIN_URL": "http://127.0.0.1:9", "LIGHTMETER_ADMIN_TOKEN": "x" * 20}
    result = run("ledger", "verify", environment=away)
    assert (result.returncode, "no gateway answers" in result.stderr) == (2, True)
    export = run("ledger", "export", environment=away)
    assert (export.returncode, "no entry was written whole: begin again" in export.stderr) == (1, True)


def test_an_export_can_be_gone_on_with(books: RunningGateway) -> None:
    key = spend(books)
    whole = run("ledger", "export", environment=environment(books))
    rows = list(csv.DictReader(io.StringIO(whole.stdout)))
    entries = books.ledger(key)
    assert [row["id"] for row in rows] == [entry["id"] for entry in entries]
    assert [row["charged"] for row in rows] == [str(entry.get("charged", "")) for entry in entries]
    assert rows[-1]["reason"] == "'=goodwill"
    team = ("--team", "acme")
    rest = run("ledger", "export", *team, "--cursor", entries[3]["id"], environment=environment(books))
    assert whole.stdout.endswith(rest.stdout)
    assert len(rest.stdout.splitlines()) == len(entries) - 4
    assert resume_cursor(rest.stderr) == entries[-1]["id"]
    lines = run("ledger", "export", "--format", "jsonl", "--team", "acme", environment=environment(books)).stdout
    assert [json.loads(line) for line in lines.splitlines()] == entries
    nothing = run("ledger", "export", *team, "--cursor", entries[-1]["id"], environment=environment(books))
    assert (nothing.returncode, nothing.stdout) == (0, "")
    other_list = run("ledger", "export", "--cursor", entries[-1]["id"], environment=environment(books))
    assert (other_list.returncode, "goes with 'team'" in other_list.stderr) == (1, True)


def resume_cursor(told: str) -> str:
    """The cursor that a command told on standard error."""
    return told.rpartition("--cursor ")[2].strip()


def test_an_export_that_goes_on_has_what_a_team_earlier_in_the_alphabet_got_since(books: RunningGateway) -> None:
    spend(books, "research")
    first = run("ledger", "export", "--json", environment=environment(books))
    key = spend(books, "acme")
    spend(books, "zoo")
    rest = run("ledger", "export", "--json", "--cursor", resume_cursor(first.stderr), environment=environment(books))
    entries = [json.loads(line) for line in (first.stdout + rest.stdout).splitlines()]
    assert [entry["id"] for entry in entries if entry["team"] == "acme"] == [entry["id"] for entry in books.ledger(key)]
    assert len({entry["id"] for entry in entries}) == len(entries) == 24
    nothing = run("ledger", "export", "--json", "--cursor", resume_cursor(rest.stderr), environment=environment(books))
    assert (nothing.returncode, nothing.stdout) == (0, "")


def test_an_export_to_a_full_disk_says_where_to_go_on(books: RunningGateway) -> None:
    spend(books)
    done = run("ledger", "export", "--json", environment=environment(books))
    command = [sys.executable, "-m", "proxy.cli", "ledger", "export"]
    for arguments, told in (
        ((), "no entry was written whole: begin again"),
        (("--cursor", "0."), "go on with --cursor 0.\n"),
    ):
        with Path("/dev/full").open("wb") as full:
            result = subprocess.run(
                [*command, *arguments],
                stdout=full,
                stderr=subprocess.PIPE,
                text=True,
                timeout=30,
                check=False,
                env={**os.environ, **environment(books)},
            )
        assert result.returncode == 1
        assert result.stderr == f"standard output takes nothing more (No space left on device); {told.strip()}\n"
    assert len(done.stdout.splitlines()) == 8


def test_a_refund_on_the_wire(books: RunningGateway) -> None:
    key = spend(books)
    entry = next(entry for entry in books.ledger(key) if entry.get("charged"))
    path = f"/admin/v1/ledger/{entry['id']}/refund"
    assert books.admin("POST", path, body={}).json["error"]["param"] == "reason"
    assert books.admin("POST", path, body={"reason": ""}).status == 400
    posted = books.quota(key)["posted"]
    made = books.admin("POST", path, body={"reason": "x"})
    assert (made.status, made.json["refunds"]) == (201, entry["id"])
    assert books.quota(key)["posted"] == posted - entry["charged"]
    assert books.admin("POST", path, body={"reason": "x"}).status == 409
    assert books.admin("POST", "/admin/v1/ledger/acme_1-1/refund", body={"reason": "x"}).status == 404
    assert books.admin("POST", "/admin/v1/ledger/nonsense/refund", body={"reason": "x"}).status == 404
    empty = next(entry for entry in books.ledger(key) if entry.get("outcome") == "empty")
    assert books.admin("POST", f"/admin/v1/ledger/{empty['id']}/refund", body={"reason": "x"}).status == 400
    assert books.admin("GET", "/admin/v1/ledger/books/No%20Team").status == 404
    books.check_books(key)


def test_sixty_readers_at_once_are_all_answered(books: RunningGateway) -> None:
    key = key_id(spend(books))
    paths = ["/admin/v1/ledger", "/admin/v1/keys", "/admin/v1/audit", f"/admin/v1/keys/{key}/usage", "/admin/v1/teams"]
    with ThreadPoolExecutor(64) as threads:
        answers = list(threads.map(lambda number: books.admin("GET", paths[number % len(paths)]), range(320)))
    assert [answer.status for answer in answers] == [200] * 320
    assert "lightmeter_store_up 1.0" in books.metrics()
