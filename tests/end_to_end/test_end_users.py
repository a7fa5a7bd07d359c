"""End users and tags: from the request into the ledger and the statement."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.test_command_line import lightmeter
from tests.support.gateways import (
    ADMIN_TOKEN,
    RunningGateway,
    SampleProvider,
    ask,
    configuration,
    image_model,
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
