from __future__ import annotations

import json
from pathlib import Path

import redis

from tests.end_to_end.test_command_line import lightmeter
from tests.shipping.books import Ledgers
from tests.support.gateways import configuration, running_gateway
from tests.support.processes import wait_for
from tests.support.stores import store_server

DAY_MS = 86_400_000


def age(store_url: str, team: str, days: int) -> None:
    """Make every entry of a team older: the store has no other clock."""
    with redis.Redis.from_url(store_url) as store:
        name = f"lm:{{{team}}}:ledger"
        entries = store.xrange(name)
        store.delete(name)
        for stream_id, fields in entries:
            milliseconds, _, number = stream_id.decode().partition("-")
            store.xadd(name, fields, id=f"{int(milliseconds) - days * DAY_MS}-{number}")


def test_only_what_was_shipped_is_trimmed_and_the_books_stay_right(provider_url: str, tmp_path: Path) -> None:
    lines = tmp_path / "lines"
    with store_server("valkey", tmp_path) as (store_url, _server):
        accounting = {"ledger_days": 1, "ledger_shippers": ["archive"]}
        toml = configuration(store_url, provider_url, accounting=accounting)
        with running_gateway(tmp_path / "first", toml) as gateway:
            ledgers = Ledgers(gateway, store_url, tmp_path)
            for team in ("acme", "other"):
                ledgers.fill(team, 30)
                age(store_url, team, 3)
            before = ledgers.entries()
        with running_gateway(tmp_path / "second", toml) as gateway:
            ledgers = Ledgers(gateway, store_url, tmp_path)
            gateway.server.wait_for_output(
                "2 teams have entries older than 1 days that have not been shipped by archive"
            )
            assert ledgers.entries() == before
            assert 'lightmeter_ledger_ship_lag_seconds{shipper="archive"}' in gateway.metrics()
            assert ledgers.shipped(f"jsonl:{lines}", "--name", "archive")["entries"] == 60
            # What has not been shipped when the next gateway looks stays.
            ledgers.fill("acme", 1)
            age(store_url, "acme", 3)
        with running_gateway(tmp_path / "third", toml) as gateway:
            ledgers = Ledgers(gateway, store_url, tmp_path)
            gateway.server.wait_for_output("the ledger of other: 30 entries went into its checkpoint")
            wait_for(lambda: "the ledger of acme: 30 entries" in gateway.server.output, "trimming")
            assert len(ledgers.entries()) == 1
            verified = json.loads(lightmeter("ledger", "verify", "--json", environment=ledgers.environment))
            assert verified["ok"]
            assert ledgers.shipped(f"jsonl:{lines}", "--name", "archive")["entries"] == 1
    assert sum(file.read_bytes().count(b"\n") for file in lines.glob("*.jsonl")) == 61
