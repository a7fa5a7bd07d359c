"""Each change over the admin API leaves a record of who made it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.test_admin_tokens import BOB_TOKEN, CI_TOKEN, TOKENS
from tests.end_to_end.test_command_line import lightmeter
from tests.support.gateways import (
    Answer,
    RunningGateway,
    SampleProvider,
    ask,
    configuration,
    running_gateway,
)

CHANGING = {"post", "patch", "delete", "put"}


@pytest.fixture(scope="module")
def audited(provider: SampleProvider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    """A gateway whose administrators have names."""
    folder = tmp_path_factory.mktemp("audited")
    toml = configuration(f"embedded:{folder}/data", provider.url) + TOKENS
    with running_gateway(folder, toml, {"CI_TOKEN": CI_TOKEN, "BOB_TOKEN": BOB_TOKEN}) as gateway:
        yield gateway


def by_bob(gateway: RunningGateway, method: str, path: str, body: object = None) -> Answer:
    answer = ask(method, gateway.admin_url + path, key=BOB_TOKEN, body=body)
    assert answer.status in (200, 201), answer.body
    return answer


def test_every_route_that_changes_something_is_recorded(audited: RunningGateway) -> None:
    limits = {"quota_units": 100_000, "models": ["acme/*"]}
    seen: set[tuple[str, str]] = set()
    requests: list[str] = []

    def change(route: str, method: str, path: str, body: object = None) -> Answer:
        seen.add((route, method.lower()))
        answer = by_bob(audited, method, path, body)
        requests.append(answer.headers["x-request-id"])
        return answer

    teams, keys = "/admin/v1/teams", "/admin/v1/keys"
    change(teams, "POST", teams, {"id": "books", "name": "Books", "limits": limits})
    change(f"{teams}/{{id}}", "PATCH", f"{teams}/books", {"limits": {"requests_per_minute": 60}})
    change(f"{teams}/{{id}}/grants", "POST", f"{teams}/books/grants", {"quota_units": 5, "reason": "goodwill"})
    made = change(keys, "POST", keys, {"team": "books", "name": "nightly", "limits": limits}).json
    key = f"{keys}/{made['id']}"
    assert audited.generate(made["key"]).status == 200
    entry = audited.ledger(made["key"])[-1]["id"]
    refund = "/admin/v1/ledger/{entry}/refund"
    change(refund, "POST", f"/admin/v1/ledger/{entry}/refund", {"reason": "the image was black"})
    change(f"{keys}/{{id}}/grants", "POST", f"{key}/grants", {"quota_units": 5, "reason": "goodwill"})
    change(f"{keys}/{{id}}", "PATCH", key, {"limits": {"quota_units": None}})
    change(f"{keys}/{{id}}/rotate", "POST", f"{key}/rotate", {})
    change(f"{keys}/{{id}}", "DELETE", key)
    change(f"{teams}/{{id}}", "DELETE", f"{teams}/books")

    paths = ask("GET", f"{audited.admin_url}/openapi.json").json["paths"]
    changing = {
        *((path, method) for path, item in paths.items() for method in item if method in CHANGING),
    }
    # A shipper's reports of its progress come by the minute, and would push out what people did.
    reports = {("/admin/v1/ledger/shipped", "post")}
    assert seen == {(path, method) for path, method in changing if path.startswith("/admin/")} - reports

    found = ask("GET", f"{audited.admin_url}/admin/v1/audit?team=books", key=CI_TOKEN).json["data"]
    assert [each["request"] for each in found] == requests
    assert {each["by"] for each in found} == {"bob"}
    assert [each["action"] for each in found] == [
        *("team.create", "team.update", "team.grant", "key.create", "ledger.refund", "key.grant", "key.update"),
        *("key.rotate", "key.revoke", "team.delete"),
    ]
    updated = found[6]
    assert updated["target"] == made["id"]
    assert updated["before"]["limits"]["quota_units"] == 100_000
    assert updated["after"]["limits"]["quota_units"] is None
    assert made["key"] not in json.dumps(found)


def test_a_refused_change_leaves_no_record(audited: RunningGateway) -> None:
    for token, body in ((CI_TOKEN, {"id": "refused"}), (BOB_TOKEN, {"id": "refused", "limits": {"nonsense": 1}})):
        answer = ask("POST", f"{audited.admin_url}/admin/v1/teams", key=token, body=body)
        assert answer.status in (400, 403)
    assert ask("GET", f"{audited.admin_url}/admin/v1/audit?team=refused", key=CI_TOKEN).json["data"] == []


def test_the_command_line_lists_changes(audited: RunningGateway) -> None:
    by_bob(audited, "POST", "/admin/v1/teams", {"id": "told", "limits": {"quota_units_per_day": 5_000}})
    by_bob(audited, "PATCH", "/admin/v1/teams/told", {"name": "Told", "limits": {"quota_units_per_day": 7_000}})
    environment = {"LIGHTMETER_ADMIN_URL": audited.admin_url, "LIGHTMETER_ADMIN_TOKEN": CI_TOKEN}
    table = lightmeter("audit", "list", "--team", "told", environment=environment).splitlines()
    assert table[0].split() == ["AT", "BY", "ACTION", "TARGET", "CHANGES"]
    assert table[1].split()[1:] == ["bob", "team.create", "told", "quota_units_per_day:", "5,000;", "models:", "*"]
    assert table[2].endswith("quota_units_per_day: 5,000 -> 7,000")
    assert "name:  -> Told" in table[2]
    first = json.loads(lightmeter("audit", "list", "--team", "told", "--limit", "1", "--json", environment=environment))
    rest = json.loads(
        lightmeter(
            *("audit", "list", "--team", "told", "--cursor", first["next_cursor"], "--json"), environment=environment
        )
    )
    assert [each["action"] for each in first["data"] + rest["data"]] == ["team.create", "team.update"]


def test_what_is_recorded_is_there_after_a_restart(provider: SampleProvider, tmp_path: Path) -> None:
    toml = configuration(f"embedded:{tmp_path}/data", provider.url)
    with running_gateway(tmp_path, toml) as gateway:
        gateway.make_key()
    with running_gateway(tmp_path, toml) as again:
        entries = again.admin("GET", "/admin/v1/audit").json["data"]
    assert [(each["by"], each["action"]) for each in entries] == [("admin", "team.create"), ("admin", "key.create")]
