"""``accounting.units_per_usd``: US dollars beside quota units, wherever either is shown or taken."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.test_command_line import lightmeter, run
from tests.support.gateways import (
    ADMIN_TOKEN,
    RunningGateway,
    SampleProvider,
    ask,
    configuration,
    key_id,
    running_gateway,
)

COUNTERS = ("limit", "posted", "reserved", "remaining")


@pytest.fixture(scope="module")
def priced(provider: SampleProvider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    folder = tmp_path_factory.mktemp("us-dollars")
    toml = configuration(f"embedded:{folder}/data", provider.url, accounting={"units_per_usd": 100_000})
    with running_gateway(folder, toml) as running:
        yield running


def environment(gateway: RunningGateway) -> dict[str, str]:
    return {"LIGHTMETER_ADMIN_URL": gateway.admin_url, "LIGHTMETER_ADMIN_TOKEN": ADMIN_TOKEN}


def make_key(gateway: RunningGateway, limits: dict[str, Any], team: str = "acme") -> str:
    answer = gateway.admin("POST", "/admin/v1/keys", body={"team": team, "limits": limits})
    assert answer.status == 201, answer.body
    return str(answer.json["key"])


def test_a_limit_in_dollars_is_one_of_units_and_holds(priced: RunningGateway) -> None:
    key = make_key(priced, {"quota_units": "$0.12", "quota_units_per_day": "$250"})
    assert [priced.generate(key).status for _ in range(3)] == [200, 200, 429]
    limits = ask("GET", f"{priced.url}/v1/key", key=key).json["limits"]
    assert limits["quota_units"] == {
        "limit": 12_000, "posted": 10_000, "reserved": 0, "remaining": 2_000,
        "limit_usd": "0.12", "posted_usd": "0.10", "reserved_usd": "0.00", "remaining_usd": "0.02",
    }  # fmt: skip
    assert limits["quota_units_per_day"]["limit"] == 25_000_000
    assert limits["quota_units_per_month"]["limit_usd"] is None
    priced.check_books(key)


def test_grants_and_answers_of_the_admin_api_have_both(priced: RunningGateway) -> None:
    key = make_key(priced, {"quota_units": "$1"}, "granted")
    one = f"/admin/v1/keys/{key_id(key)}"
    for text in ("$2.5", "-$0.5"):
        grant = {"quota_units": text, "reason": "goodwill"}
        assert priced.admin("POST", f"{one}/grants", body=grant).status == 201
    assert priced.admin("PATCH", one, body={"limits": {"quota_units_per_month": "$3"}}).status == 200
    assert priced.generate(key).status == 200
    shown = priced.admin("GET", one).json
    assert (shown["granted_units"], shown["granted_units_usd"]) == (200_000, "2.00")
    assert shown["limits"]["quota_units_per_month"] == 300_000
    assert [shown["usage"]["quota_units"][f"{name}_usd"] for name in COUNTERS] == ["3.00", "0.05", "0.00", "2.95"]
    usage = priced.admin("GET", f"{one}/usage").json
    assert usage["overage_units_usd"] == "0.00"
    assert usage["by_model"]["acme/image-1"] == {"images": 1, "quota_units": 5_000, "quota_units_usd": "0.05"}
    grants = [entry for entry in priced.ledger(key) if entry["kind"] == "grant"]
    assert [entry["quota_units_usd"] for entry in grants] == ["2.50", "-0.50"]
    (request,) = [entry for entry in priced.ledger(key) if entry["kind"] == "request"]
    assert [request[name] for name in ("reserved_usd", "charged_usd", "overage_usd")] == ["0.05", "0.05", "0.00"]
    audit = priced.admin("GET", "/admin/v1/audit?team=granted").json["data"][-1]
    assert audit["after"]["usage"]["quota_units"]["limit_usd"] == "3.00"


@pytest.mark.parametrize("limit", ["$", "250", "$-5", "$1e9", "-$5", "$999999999.999999"])
def test_what_is_no_such_limit_is_refused(priced: RunningGateway, limit: str) -> None:
    answer = priced.admin("POST", "/admin/v1/keys", body={"team": "acme", "limits": {"quota_units": limit}})
    expected = 201 if limit == "$999999999.999999" else 400
    assert answer.status == expected
    if expected == 400:
        assert answer.json["error"]["param"] == "limits.quota_units"


def test_the_command_line_takes_and_shows_dollars(priced: RunningGateway) -> None:
    admin = environment(priced)
    arguments = ("keys", "create", "--team", "cli-usd", "--new-team", "--quota", "$250", "--json")
    made = json.loads(lightmeter(*arguments, environment=admin))
    assert made["limits"]["quota_units"] == 25_000_000
    lightmeter("keys", "grant", made["id"], "$0.50", "--reason", "more", environment=admin)
    lightmeter("keys", "grant", made["id"], "--reason", "less", "--", "-$0.25", environment=admin)
    assert priced.generate(made["key"]).status == 200
    usage = lightmeter("usage", made["id"], environment=admin)
    assert "in US dollars" in usage
    assert all(amount in usage for amount in ("250.25", "250.20", "0.05"))
    listed = lightmeter("ledger", "list", "--team", "cli-usd", environment=admin).splitlines()
    assert [line.split()[-1] for line in listed] == ["USD", "0.50", "-0.25", "0.05"]
    rows = list(csv.DictReader(io.StringIO(lightmeter("ledger", "export", "--team", "cli-usd", environment=admin))))
    assert [row["charged_usd"] or row["quota_units_usd"] for row in rows] == ["0.50", "'-0.25", "0.05"]
    wrong = run("keys", "create", "--team", "cli-usd", "--requests-per-minute", "$5", environment=admin)
    assert wrong.returncode == 2


def test_a_file_of_teams_may_be_in_dollars_and_is_applied_once(priced: RunningGateway, tmp_path: Path) -> None:
    file = tmp_path / "teams.toml"
    file.write_text('[[teams]]\nid = "filed"\n[teams.limits]\nquota_units_per_month = "$250"\n')
    first = lightmeter("apply", "-f", str(file), environment=environment(priced))
    assert "25,000,000" in first
    assert "Nothing to change" in lightmeter("apply", "-f", str(file), environment=environment(priced))
    assert priced.admin("GET", "/admin/v1/teams/filed").json["limits"]["quota_units_per_month"] == 25_000_000


def test_the_metric_is_what_was_charged(priced: RunningGateway) -> None:
    assert priced.generate(priced.make_key(team="counted")).status == 200
    counted = {
        line.partition("{")[0]: float(line.rpartition(" ")[2])
        for line in priced.metrics().splitlines()
        if line.startswith(("lightmeter_charged_usd_total{", "lightmeter_quota_units_total{"))
        and ("charged_usd" in line or 'state="charged"' in line)
    }
    assert counted["lightmeter_charged_usd_total"] == counted["lightmeter_quota_units_total"] / 100_000 > 0


def test_without_the_setting_there_are_no_dollars(gateway: RunningGateway, tmp_path: Path) -> None:
    key = gateway.make_key(5_000)
    assert set(gateway.quota(key)) == set(COUNTERS)
    answer = gateway.admin("POST", "/admin/v1/keys", body={"team": "acme", "limits": {"quota_units": "$5"}})
    assert answer.status == 400
    assert "accounting.units_per_usd" in answer.json["error"]["message"]
    assert gateway.admin("GET", "/admin/v1/money").json == {"units_per_usd": None}
    file = tmp_path / "teams.toml"
    file.write_text('[[teams]]\nid = "filed"\n[teams.limits]\nquota_units = "$250"\n')
    done = run("apply", "-f", str(file), environment=environment(gateway))
    assert done.returncode == 1
    assert "teams[0].limits.quota_units" in done.stderr
    assert "accounting.units_per_usd" in done.stderr
