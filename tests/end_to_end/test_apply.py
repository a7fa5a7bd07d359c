"""Teams, keys and limits from a file, with the real command on a gateway that runs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from tests.end_to_end.test_admin_tokens import BOB_TOKEN, CI_TOKEN, TOKENS
from tests.end_to_end.test_command_line import run
from tests.support.gateways import RunningGateway, SampleProvider, configuration, running_gateway
from tests.support.processes import free_port

FILE = """\
[[teams]]
id = "{team}"
name = "Research"
[teams.limits]
requests_per_minute = 600
models = ["acme/*"]

[[teams.keys]]
name = "nightly"
expires_at = 2099-01-31T00:00:00Z
[teams.keys.limits]
quota_units = 20000

[[teams.keys]]
name = "notebooks"
"""


@pytest.fixture(scope="module")
def provisioned(provider: SampleProvider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    """A gateway to be filled from files."""
    folder = tmp_path_factory.mktemp("provisioned")
    toml = configuration(f"embedded:{folder}/data", provider.url) + TOKENS
    with running_gateway(folder, toml, {"CI_TOKEN": CI_TOKEN, "BOB_TOKEN": BOB_TOKEN}) as gateway:
        yield gateway


class Provisioning:
    """``lightmeter apply`` on a team of its own."""

    def __init__(self, gateway: RunningGateway, folder: Path, team: str) -> None:
        self.gateway, self.folder, self.team = gateway, folder, team
        self.path = folder / "teams.toml"
        self.write(FILE.format(team=team))

    def write(self, text: str) -> None:
        self.path.write_text(text)

    def change(self, old: str, new: str) -> None:
        text = self.path.read_text()
        assert text.count(old) == 1
        self.write(text.replace(old, new))

    def __call__(self, *arguments: str, token: str = BOB_TOKEN) -> CompletedProcess[str]:
        environment = {"LIGHTMETER_ADMIN_URL": self.gateway.admin_url, "LIGHTMETER_ADMIN_TOKEN": token}
        done = run("apply", "-f", str(self.path), *arguments, environment=environment, folder=self.folder)
        assert "Traceback" not in done.stderr
        return done

    def all_keys(self) -> list[dict[str, Any]]:
        keys: list[dict[str, Any]] = self.gateway.admin("GET", f"/admin/v1/keys?team={self.team}").json["data"]
        return keys

    def changes(self) -> int:
        """How often anything of the team has been changed."""
        return len(self.gateway.admin("GET", f"/admin/v1/audit?team={self.team}&limit=1000").json["data"])


@pytest.fixture
def apply(provisioned: RunningGateway, tmp_path: Path, request: pytest.FixtureRequest) -> Provisioning:
    names = request.node.name.removeprefix("test_").replace("_", "-")
    return Provisioning(provisioned, tmp_path, names[:40].strip("-"))


def test_the_gateway_becomes_as_the_file_has_it_and_stays_so(apply: Provisioning) -> None:
    shown = apply("--dry-run")
    assert shown.returncode == 3
    assert "requests_per_minute" in shown.stdout
    assert apply.gateway.admin("GET", f"/admin/v1/teams/{apply.team}").status == 404

    secrets = apply.folder / "keys.jsonl"
    made = apply("--secrets", str(secrets))
    assert made.returncode == 0, made.stderr
    assert "3 change(s) made" in made.stdout
    assert secrets.stat().st_mode & 0o777 == 0o600
    lines = [json.loads(line) for line in secrets.read_text().splitlines()]
    assert [(line["team"], line["name"]) for line in lines] == [(apply.team, "nightly"), (apply.team, "notebooks")]
    for line in lines:
        assert apply.gateway.generate(line["key"]).status == 200
        assert line["key"] not in made.stdout + made.stderr
    team = apply.gateway.admin("GET", f"/admin/v1/teams/{apply.team}").json
    assert (team["name"], team["limits"]["requests_per_minute"]) == ("Research", 600)
    assert {key["name"]: key["limits"]["quota_units"] for key in apply.all_keys()} == {
        "nightly": 20_000,
        "notebooks": None,
    }

    before, content = apply.changes(), secrets.read_text()
    for arguments in ((), ("--dry-run",), ("--secrets", str(secrets)), ("--print-secrets",)):
        again = apply(*arguments)
        assert (again.returncode, again.stdout) == (0, "Nothing to change: the gateway is as the file has it.\n")
    assert apply.changes() == before
    assert secrets.read_text() == content


def test_a_changed_file_changes_only_what_it_says(apply: Provisioning) -> None:
    assert apply("--print-secrets").returncode == 0
    apply.change("quota_units = 20000", "quota_units = 30000")
    apply.change("requests_per_minute = 600\n", "")
    apply.gateway.make_key(team=apply.team)
    before = apply.changes()
    shown = json.loads(apply("--dry-run", "--json").stdout)
    assert shown["applied"] is False
    assert [(each["action"], each["kind"], each["name"], each["fields"]) for each in shown["changes"]] == [
        ("update", "team", "Research", {"requests_per_minute": {"is": 600, "should_be": None}}),
        ("update", "key", "nightly", {"quota_units": {"is": 20_000, "should_be": 30_000}}),
    ]
    assert apply.changes() == before
    # No key is new, so that no place for secrets is needed.
    assert apply().returncode == 0
    assert apply.changes() == before + 2
    assert len(apply.all_keys()) == 3
    assert apply("--dry-run").returncode == 0


def test_a_revoked_key_is_made_anew(apply: Provisioning) -> None:
    apply("--print-secrets")
    revoked = next(key for key in apply.all_keys() if key["name"] == "nightly")
    apply.gateway.admin("DELETE", f"/admin/v1/keys/{revoked['id']}")
    made = json.loads(apply("--print-secrets", "--json").stdout)
    assert [(each["action"], each["name"]) for each in made["changes"]] == [("create", "nightly")]
    (key,) = made["keys"]
    assert key["id"] != revoked["id"]
    assert apply.gateway.generate(key["key"]).status == 200


def test_without_a_place_for_secrets_nothing_is_changed(apply: Provisioning) -> None:
    done = apply()
    assert done.returncode == 1
    assert "--secrets FILE or --print-secrets" in done.stderr
    taken = apply.folder / "keys.jsonl"
    taken.write_text("something else\n")
    done = apply("--secrets", str(taken))
    assert done.returncode == 1
    assert "holds something already" in done.stderr
    assert "move it away" in done.stderr
    assert taken.read_text() == "something else\n"
    done = apply("--secrets", str(apply.folder / "nowhere" / "keys.jsonl"))
    assert done.returncode == 1
    assert "name another file" in done.stderr
    link = apply.folder / "link"
    link.symlink_to(apply.folder / "elsewhere")
    assert apply("--secrets", str(link)).returncode == 1
    assert apply.gateway.admin("GET", f"/admin/v1/teams/{apply.team}").status == 404


def test_secrets_are_printed_once_and_only_where_asked_for(apply: Provisioning) -> None:
    printed = apply("--print-secrets").stdout
    assert "cannot be shown again" in printed
    text = next(line.split()[1] for line in printed.splitlines() if line.startswith(f"{apply.team}/nightly"))
    assert apply.gateway.generate(text).status == 200
    apply.change('name = "notebooks"', 'name = "others"')
    secrets = apply.folder / "keys.jsonl"
    told = json.loads(apply("--secrets", str(secrets), "--json").stdout)
    assert told["keys"] == [{**json.loads(secrets.read_text()), "key": None}]


def test_a_viewer_sees_the_difference_and_changes_nothing(apply: Provisioning) -> None:
    assert apply("--dry-run", token=CI_TOKEN).returncode == 3
    done = apply("--print-secrets", token=CI_TOKEN)
    assert done.returncode == 1
    assert "'ci' is a viewer" in done.stderr
    assert "0 of 3 changes were made" in done.stderr


def test_mistakes_in_the_file_are_told_and_nothing_is_asked_of_the_gateway(apply: Provisioning) -> None:
    apply.change("= 20000", "= -1")
    done = apply("--print-secrets")
    assert done.returncode == 1
    assert f"{apply.path}: teams[0].keys[0].limits.quota_units: is '-1'" in done.stderr


def test_no_gateway(apply: Provisioning) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    environment = {"LIGHTMETER_ADMIN_URL": url, "LIGHTMETER_ADMIN_TOKEN": BOB_TOKEN}
    done = run("apply", "-f", str(apply.path), "--dry-run", environment=environment)
    assert done.returncode == 1
    assert f"no gateway answers at {url}" in done.stderr


def test_the_example_can_be_applied(provisioned: RunningGateway, tmp_path: Path) -> None:
    example = Path(__file__).parents[2] / "config" / "teams.toml"
    environment = {"LIGHTMETER_ADMIN_URL": provisioned.admin_url, "LIGHTMETER_ADMIN_TOKEN": BOB_TOKEN}
    secrets = tmp_path / "keys.jsonl"
    done = run("apply", "-f", str(example), "--secrets", str(secrets), environment=environment)
    assert done.returncode == 0, done.stderr
    assert len(secrets.read_text().splitlines()) == 3
    assert run("apply", "-f", str(example), "--dry-run", environment=environment).returncode == 0
