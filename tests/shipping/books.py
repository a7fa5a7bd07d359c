"""A gateway with books to ship, and what they should add up to elsewhere."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from proxy.domain.api_key import parse_credential
from proxy.domain.billing.settlement import Delivery, Served, settle
from tests.end_to_end.test_command_line import run
from tests.metering.conftest import Bench, open_bench
from tests.support.gateways import ADMIN_TOKEN, RunningGateway, key_id
from tests.support.processes import Server, python_module

KINDS = ("images=1", "images=3", "images=0", "status=500")


@dataclass
class Ledgers:
    """A gateway, and the store behind it."""

    gateway: RunningGateway
    store_url: str
    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        """The variables that lead the command line here."""
        return {"LIGHTMETER_ADMIN_URL": self.gateway.admin_url, "LIGHTMETER_ADMIN_TOKEN": ADMIN_TOKEN}

    def spend(self, team: str) -> str:
        """A key that has used some of everything: requests, a grant, and a refund."""
        key = self.gateway.make_key(1_000_000, team=team)
        for kind in KINDS:
            self.gateway.generate(key, prompt=f"[sample {kind}] x", n=2)
        reason = {"quota_units": 77, "reason": 'a "good" one\n☺'}
        charged = next(entry for entry in self.gateway.ledger(key) if entry.get("overage"))
        for method, path, body in (
            ("POST", f"keys/{key_id(key)}/grants", reason),
            ("PATCH", f"teams/{team}", {"limits": {"quota_units": 10**9}}),
            ("POST", f"teams/{team}/grants", {"quota_units": -5, "reason": "x"}),
            ("POST", f"ledger/{charged['id']}/refund", {"reason": "black"}),
        ):
            assert self.gateway.admin(method, f"/admin/v1/{path}", body=body).status < 300
        return key

    def fill(self, team: str, requests: int) -> None:
        """So many requests of a team, by the scripts that a gateway runs."""
        key = parse_credential(self.gateway.make_key(None, team=team))
        assert key is not None

        async def work() -> None:
            async with open_bench(self.store_url) as bench:
                for begin in range(0, requests, 200):
                    numbers = range(begin, min(begin + 200, requests))
                    await asyncio.gather(*(one(bench, f"req_{key.key_id}_{number}") for number in numbers))

        async def one(bench: Bench, request: str) -> None:
            delivery = Delivery(images=1, served=Served("sample", 200))
            delivery.end(complete=True)
            await bench.store.settle(settle(await bench.admit(key, request, 5_000), delivery))

        asyncio.run(work())

    def entries(self) -> dict[str, dict[str, Any]]:
        """Every entry of every team, by its id, as the gateway exports it."""
        done = run("ledger", "export", "--json", environment=self.environment)
        assert done.returncode == 0, done.stderr
        entries = [json.loads(line) for line in done.stdout.splitlines()]
        return {entry["id"]: entry for entry in entries}

    def ship(self, target: str, *flags: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Ship once, to the end."""
        command = ("ledger", "ship", "--once", "--min-age", "0", "--json", "--to", target, *flags)
        return run(*command, environment=self.environment | variables)

    def shipped(self, target: str, *flags: str, **variables: str) -> dict[str, int]:
        """The same where it has to work; what it says that it did."""
        done = self.ship(target, *flags, **variables)
        assert done.returncode == 0, done.stderr
        totals: dict[str, int] = json.loads(done.stdout)
        return totals

    def shipper(self, target: str, *flags: str, variables: Mapping[str, str] | None = None) -> Server:
        """A shipper that runs until it is stopped; whoever starts it stops it."""
        flags = ("--every", "0.1", "--min-age", "0", "--to", target, *flags)
        command = python_module("proxy.cli", "ledger", "ship", *flags)
        return Server(command, self.folder / "shipper.log", self.environment | dict(variables or {}))
