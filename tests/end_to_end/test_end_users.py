"""End users and tags: from the request into the ledger and the statement."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.test_command_line import lightmeter
from tests.support.gateways import (
    ADMIN_TOKEN,
    Answer,
    RunningGateway,
    SampleProvider,
    ask,
    configuration,
    image_model,
    key_id,
    running_gateway,
)


@pytest.fixture
def shared(provider: SampleProvider, tmp_path: Path) -> Iterator[RunningGateway]:
    """A gateway that trusts a front-end to say whom a request is for."""
    models = [image_model(parameters=["n", "size"])]
    server = {"user_header": "X-OpenWebUI-User-Email"}
    toml = configuration(f"embedded:{tmp_path}/data", provider.url, models=models, server=server)
    with running_gateway(tmp_path, toml) as running:
        yield running


def test_whom_a_request_is_for_is_in_the_ledger_and_in_the_statement(
    shared: RunningGateway, provider: SampleProvider
) -> None:
    key = shared.make_key(100_000, team="school")
    url = f"{shared.url}/v1/images/generations"
    provider.clear()
    for headers, fields in (
        ({"X-OpenWebUI-User-Email": "ann@example.com", "X-Lightmeter-Tags": "project=apollo, env=prod"}, {}),
        ({}, {"safety_identifier": "bob", "user": "not bob"}),
        ({"x-lightmeter-tags": "env=prod"}, {}),
        ({}, {}),
    ):
        body = {"model": "acme/image-1", "prompt": "a cube", **fields}
        assert ask("POST", url, key=key, body=body, headers=headers).status == 200
    wrong = ask("POST", url, key=key, body={"model": "acme/image-1", "prompt": "x"}, headers={"X-Lightmeter-Tags": "x"})
    assert (wrong.status, wrong.json["error"]["param"]) == (400, "x-lightmeter-tags")
    entries = shared.ledger(key)
    assert [(entry.get("user"), entry.get("tags")) for entry in entries] == [
        ("ann@example.com", {"project": "apollo", "env": "prod"}),
        ("bob", None),
        (None, {"env": "prod"}),
        (None, None),
    ]
    assert shared.admin("POST", f"/admin/v1/ledger/{entries[0]['id']}/refund", body={"reason": "black"}).status == 201
    (statement,) = shared.admin("GET", "/admin/v1/teams/school/statements").json["data"]
    assert statement["by_user"] == {
        "ann@example.com": {"images": 1, "quota_units": 0},
        "bob": {"images": 1, "quota_units": 5_000},
    }
    assert statement["by_tag"] == {
        "env=prod": {"images": 2, "quota_units": 5_000},
        "project=apollo": {"images": 1, "quota_units": 0},
    }
    # What is said of people goes to no provider where the model does not take it, and to no log.
    assert "ann@example.com" not in json.dumps(provider.requests())
    assert "ann@example.com" not in shared.server.output
    admin = {"LIGHTMETER_ADMIN_URL": shared.admin_url, "LIGHTMETER_ADMIN_TOKEN": ADMIN_TOKEN}
    for flags in (("--user", "ann@example.com"), ("--tag", "project=apollo")):
        found = json.loads(lightmeter("ledger", "list", *flags, "--json", environment=admin))["data"]
        assert [(entry["kind"], entry["user"]) for entry in found] == [
            ("request", "ann@example.com"),
            ("refund", "ann@example.com"),
        ]
    assert shared.admin("GET", "/admin/v1/ledger?team=school&tag=env").json["error"]["param"] == "tag"
    text = lightmeter("statement", "--team", "school", "--month", statement["month"], environment=admin)
    assert "env=prod" in text
    assert json.loads(lightmeter("ledger", "verify", "--json", environment=admin))["ok"] is True


def test_nobody_is_given_the_answer_to_the_request_of_somebody_else(shared: RunningGateway) -> None:
    key = shared.make_key(100_000, limits_per_user={"quota_units_per_day": 5_000})

    def generate(user: str) -> Answer:
        headers = {"X-OpenWebUI-User-Email": user, "Idempotency-Key": "1"}
        body = {"model": "acme/image-1", "prompt": "a cube"}
        return ask("POST", f"{shared.url}/v1/images/generations", key=key, body=body, headers=headers)

    assert [generate("ann").headers.get("Idempotency-Replayed") for _ in range(2)] == [None, "true"]
    other = generate("bob")
    assert (other.status, other.json["error"]["code"]) == (422, "idempotency_mismatch")
    assert [entry["user"] for entry in shared.ledger(key)] == ["ann"]


def test_each_user_has_limits_and_is_told_that_they_are_the_user_s(shared: RunningGateway) -> None:
    admin = {"LIGHTMETER_ADMIN_URL": shared.admin_url, "LIGHTMETER_ADMIN_TOKEN": ADMIN_TOKEN}
    own = {"quota_units_per_day": 10_000, "users": {"ann": {"images_per_minute": 60}, "": {"quota_units_per_day": 0}}}
    flags = ("--team", "school", "--new-team", "--limits-per-user", json.dumps(own))
    made = json.loads(lightmeter("keys", "create", *flags, "--json", environment=admin))
    names = ("quota_units_per_day", "quota_units_per_month", "images_per_minute", "concurrent_requests")
    none = dict.fromkeys(names)
    assert made["limits"]["limits_per_user"] == none | {
        "quota_units_per_day": 10_000,
        "users": {"ann": none | {"images_per_minute": 60}, "": none | {"quota_units_per_day": 0}},
    }

    def generate(user: str | None, **more: object) -> Answer:
        headers = {} if user is None else {"X-OpenWebUI-User-Email": user}
        body = {"model": "acme/image-1", "prompt": "a cube", **more}
        return ask("POST", f"{shared.url}/v1/images/generations", key=made["key"], body=body, headers=headers)

    assert [generate("bob").status for _ in range(2)] == [200, 200]
    refused = generate("bob")
    assert (refused.status, refused.json["error"]["code"]) == (429, "insufficient_quota")
    assert refused.headers["x-should-retry"] == "false"
    assert "the user 'bob' of the key has 0 left for the day" in refused.json["error"]["message"]
    assert "limits_per_user.quota_units_per_day: limit 10,000, used 10,000" in refused.json["error"]["message"]
    assert [generate("ann").status for _ in range(3)] == [200] * 3
    nobody = generate(None)
    assert (nobody.status, nobody.json["error"]["code"]) == (429, "insufficient_quota")
    assert "the user '' (who is whoever names none) of the key" in nobody.json["error"]["message"]
    lightmeter("keys", "update", made["id"], "--user-images-per-minute", "1", environment=admin)
    changed = shared.admin("GET", f"/admin/v1/keys/{made['id']}").json["limits"]["limits_per_user"]
    assert (changed["quota_units_per_day"], changed["images_per_minute"], len(changed["users"])) == (10_000, 1, 2)
    assert generate("eve", n=2).json["error"]["code"] == "rate_limit_exceeded"
    usage = shared.admin("GET", f"/admin/v1/keys/{made['id']}/usage?user=bob").json["user"]
    assert (usage["id"], usage["limits"]["images_per_minute"]["limit"]) == ("bob", 1)
    day = usage["limits"]["quota_units_per_day"]
    assert (day["limit"], day["posted"], day["reserved"], day["remaining"]) == (10_000, 10_000, 0, 0)
    assert usage["limits"]["concurrent_requests"] == {"limit": None, "in_progress": 0, "remaining": None}
    shown = lightmeter("usage", made["id"], "--user", "bob", environment=admin)
    assert "quota_units_per_day" in shown
    assert "10,000" in shown
    assert shared.admin("GET", "/admin/v1/teams/school/usage?user=bob").status == 404
    for wrong, param in (
        ({"quota_units_per_day": -1}, "limits.limits_per_user.quota_units_per_day"),
        ({"requests_per_minute": 5}, "limits.limits_per_user.requests_per_minute"),
        ({"users": {f"user {number}": {} for number in range(101)}}, "limits.limits_per_user.users"),
        ({"users": {"bob": {"models": ["*"]}}}, "limits.limits_per_user.users.bob.models"),
    ):
        answer = shared.admin("PATCH", f"/admin/v1/keys/{made['id']}", body={"limits": {"limits_per_user": wrong}})
        assert (answer.status, answer.json["error"]["param"]) == (400, param)
    assert "others of 2 users" in lightmeter("keys", "show", made["id"], environment=admin)
    refund = shared.ledger(made["key"])[0]["id"]
    assert shared.admin("POST", f"/admin/v1/ledger/{refund}/refund", body={"reason": "black"}).status == 201
    assert generate("bob").status == 200
    assert json.loads(lightmeter("ledger", "verify", "--json", environment=admin))["ok"] is True
    lightmeter("keys", "update", made["id"], "--limits-per-user", "none", environment=admin)
    assert generate(None).status == 200


def test_the_owner_of_a_key_sees_what_one_of_its_users_has_used(shared: RunningGateway) -> None:
    shared.admin("POST", "/admin/v1/teams", body={"id": "school", "name": ""})
    limits = {"quota_units_per_day": 20_000, "users": {"bob": {"images_per_minute": 60}}}
    key = shared.make_key(None, team="school", limits_per_user=limits)
    header = {"X-OpenWebUI-User-Email": "ann"}
    body = {"model": "acme/image-1", "prompt": "a cube", "n": 3}
    assert ask("POST", f"{shared.url}/v1/images/generations", key=key, body=body, headers=header).status == 200

    def own(query: str = "", headers: dict[str, str] | None = None) -> dict[str, Any]:
        found: dict[str, Any] = ask("GET", f"{shared.url}/v1/key{query}", key=key, headers=headers).json
        return found

    assert "user" not in own()
    # A front-end may pass on what its users ask: none of them is told of another.
    for found in (own(headers=header), own("?user=ann"), own("?user=bob", header), own("?user=", header)):
        user = found["user"]
        assert (user["id"], user["team_limits"]) == ("ann", None)
        day = user["limits"]["quota_units_per_day"]
        assert (day["limit"], day["posted"], day["reserved"], day["remaining"]) == (20_000, 15_000, 0, 5_000)
    bob = own("?user=bob")["user"]["limits"]
    assert (bob["quota_units_per_day"]["limit"], bob["images_per_minute"]["limit"]) == (None, 60)
    assert own("?user=")["user"]["limits"]["quota_units_per_day"]["remaining"] == 20_000
    shared.admin("PATCH", "/admin/v1/teams/school", body={"limits": {"limits_per_user": {"concurrent_requests": 2}}})
    both = own("?user=ann")["user"]
    assert both["team_limits"]["concurrent_requests"] == {"limit": 2, "in_progress": 0, "remaining": 2}


def test_usage_by_user_and_by_tag_of_a_day_and_a_month(shared: RunningGateway) -> None:
    admin = {"LIGHTMETER_ADMIN_URL": shared.admin_url, "LIGHTMETER_ADMIN_TOKEN": ADMIN_TOKEN}
    first, second = (shared.make_key(1_000_000, team="school") for _ in range(2))
    for key, user, tags, images in (
        (first, "ann", "env=prod, project=apollo", 2),
        (second, "ann", "env=test", 1),
        (first, "bob", None, 1),
        (first, None, "env=prod", 4),
    ):
        headers = {"X-OpenWebUI-User-Email": user, "X-Lightmeter-Tags": tags}
        body = {"model": "acme/image-1", "prompt": "a cube", "n": images}
        url = f"{shared.url}/v1/images/generations"
        assert ask("POST", url, key=key, body=body, headers={k: v for k, v in headers.items() if v}).status == 200
    month = shared.ledger(first)[0]["at"][:7]

    def people(query: str) -> dict[str, Any]:
        answer = shared.admin("GET", f"/admin/v1/teams/school/usage/people?window={month}&{query}")
        assert answer.status == 200, answer.body
        found: dict[str, Any] = answer.json
        return found

    def used(query: str) -> list[tuple[str, int, int, int]]:
        return [(each["name"], each["requests"], each["images"], each["quota_units"]) for each in people(query)["data"]]

    assert used("by=user") == [("", 1, 4, 20_000), ("ann", 2, 3, 15_000), ("bob", 1, 1, 5_000)]
    assert used("by=tag") == [
        ("env=prod", 2, 6, 30_000),
        ("project=apollo", 1, 2, 10_000),
        ("env=test", 1, 1, 5_000),
    ]
    assert used(f"key={key_id(second)}") == [("ann", 1, 1, 5_000)]
    top = people("limit=1")
    assert top["total"] == {"requests": 4, "images": 8, "quota_units": 40_000}
    assert top["others"] == {"names": 2, "requests": 3, "images": 4, "quota_units": 20_000}
    assert (top["complete"], top["by"], people("limit=3")["others"]) == (True, "user", None)
    # It goes on from there; a refund gives back.
    entry = shared.ledger(first)[0]["id"]
    assert shared.admin("POST", f"/admin/v1/ledger/{entry}/refund", body={"reason": "black"}).status == 201
    assert used("by=user")[1:] == [("ann", 2, 3, 5_000), ("bob", 1, 1, 5_000)]
    for wrong, status, param in (
        ("2026-02-30", 400, "window"),
        ("2026-13", 400, "window"),
        (f"{month}&key=other_k7f3m2q9aa", 404, None),
    ):
        answer = shared.admin("GET", f"/admin/v1/teams/school/usage/people?window={wrong}")
        assert (answer.status, answer.json["error"]["param"]) == (status, param)
    assert shared.admin("GET", f"/admin/v1/teams/nobody/usage/people?window={month}").status == 404
    shown = lightmeter("usage", "school", "--by", "user", "--window", month, "--limit", "2", environment=admin)
    assert [line.split()[0] for line in shown.splitlines()] == ["USER", "(none", "ann", "(1"]
    of_key = ("usage", key_id(second), "--by", "tag", "--window", month, "--json")
    assert [each["name"] for each in json.loads(lightmeter(*of_key, environment=admin))["data"]] == ["env=test"]
