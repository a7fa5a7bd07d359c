from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.gateways import (
    ADMIN_TOKEN,
    RunningGateway,
    SampleProvider,
    ask,
    configuration,
    key_id,
    running_gateway,
)
from tests.support.processes import free_port, python_module, running
from tests.support.template import can_fork, finish


def lightmeter(*arguments: str, environment: dict[str, str] | None = None, folder: Path | None = None) -> str:
    """What a command prints, its errors too; fails where it fails."""
    done = run(*arguments, environment=environment, folder=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def run(
    *arguments: str, environment: dict[str, str] | None = None, folder: Path | None = None
) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("LIGHTMETER_")}
    command, variables = python_module("proxy.cli", *arguments), environment or {}
    if can_fork(command, variables):
        return finish(command, {**inherited, **variables}, folder, 60)
    return subprocess.run(
        command,
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        cwd=folder,
        env={**inherited, "PYTHONPATH": str(Path.cwd()), **variables},
    )


@pytest.fixture
def admin(gateway: RunningGateway) -> dict[str, str]:
    """The variables that lead the command line to the gateway."""
    return {"LIGHTMETER_ADMIN_URL": gateway.admin_url, "LIGHTMETER_ADMIN_TOKEN": ADMIN_TOKEN}


def test_the_life_of_a_key(gateway: RunningGateway, admin: dict[str, str]) -> None:
    made = json.loads(
        lightmeter(
            *("keys", "create", "--team", "cli-team", "--new-team", "--name", "nightly", "--quota", "20000"),
            *("--model", "acme/*", "--expires-at", "2099-01-01T00:00:00Z", "--json"),
            environment=admin,
        )
    )
    key, own_id = made["key"], made["id"]
    assert {name: value for name, value in made["limits"].items() if value is not None} == {
        "quota_units": 20_000,
        "models": ["acme/*"],
    }
    assert made["expires_at"] == "2099-01-01T00:00:00.000Z"
    assert gateway.generate(key, n=2).status == 200

    listed = lightmeter("keys", "list", "--team", "cli-team", environment=admin)
    assert listed.splitlines()[0].split() == [
        *("KEY", "NAME", "LIMIT", "OF", "USED", "HELD", "LEFT", "IMAGES", "EXPIRES", "REVOKED"),
    ]
    assert listed.splitlines()[1].split()[:8] == [
        made["id"],
        "nightly",
        "20,000",
        "total",
        "10,000",
        "0",
        "10,000",
        "2",
    ]
    shown = lightmeter("keys", "show", own_id, environment=admin)
    assert key not in shown
    assert ["quota_units", "-", "20,000", "10,000", "0", "10,000"] in [line.split() for line in shown.splitlines()]

    lightmeter("keys", "grant", own_id, "5000", "--reason", "goodwill", environment=admin)
    lightmeter("keys", "grant", "--reason", "mistake", "--", own_id, "-2000", environment=admin)
    changed = json.loads(lightmeter("keys", "update", own_id, "--quota", "30000", "--json", environment=admin))
    assert changed["usage"]["quota_units"] == {"limit": 33_000, "posted": 10_000, "reserved": 0, "remaining": 23_000}
    free = json.loads(
        lightmeter("keys", "update", own_id, "--quota", "none", "--no-expiry", "--json", environment=admin)
    )
    assert (free["limits"]["quota_units"], free["expires_at"]) == (None, None)

    renewed = json.loads(lightmeter("keys", "rotate", own_id, "--json", environment=admin))["key"]
    assert gateway.generate(key).status == 401
    assert gateway.generate(renewed).status == 200
    lightmeter("keys", "revoke", own_id, environment=admin)
    assert gateway.generate(renewed).status == 401

    used = lightmeter("usage", own_id, environment=admin)
    assert "acme/image-1       3  15,000" in used
    entries = json.loads(lightmeter("ledger", "list", "--key", own_id, "--json", environment=admin))["data"]
    assert [entry["kind"] for entry in entries] == ["request", "grant", "grant", "request"]
    table = lightmeter("ledger", "list", "--key", own_id, "--outcome", "delivered", environment=admin)
    assert len(table.splitlines()) == 3


def test_the_life_of_a_team(gateway: RunningGateway, admin: dict[str, str]) -> None:
    limits = ("--quota-per-day", "15000", "--concurrent-requests", "5", "--model", "acme/*")
    lightmeter("teams", "create", "cli-budget", "--name", "Budget", *limits, environment=admin)
    key = gateway.make_key(team="cli-budget")
    assert gateway.generate(key, n=2).status == 200
    refused = gateway.generate(key, n=2)
    assert (refused.status, refused.json["error"]["code"]) == (429, "insufficient_quota")
    assert "its team has 5,000 left for the day" in refused.json["error"]["message"]
    used = lightmeter("usage", "cli-budget", environment=admin)
    (line,) = [line.split() for line in used.splitlines() if line.startswith("quota_units_per_day")]
    assert line[2:] == ["15,000", "10,000", "0", "5,000"]
    lightmeter("teams", "update", "cli-budget", "--quota-per-day", "none", "--quota", "15000", environment=admin)
    assert gateway.generate(key, n=2).status == 429
    lightmeter("teams", "grant", "cli-budget", "5000", "--reason", "a good cause", environment=admin)
    assert gateway.generate(key, n=2).status == 200
    listed = lightmeter("teams", "list", "--limit", "1000", environment=admin)
    assert ["cli-budget", "Budget", "20,000", "total", "20,000", "0", "0", "4", "-"] in [
        line.split() for line in listed.splitlines()
    ]
    lightmeter("teams", "delete", "cli-budget", environment=admin)
    assert gateway.generate(key).status == 401
    made = run("keys", "create", "--team", "cli-budget", environment=admin)
    assert "has been deleted" in made.stderr
    assert json.loads(lightmeter("ledger", "verify", "--json", environment=admin))["ok"] is True


def test_a_list_of_accounts_shows_the_quota_that_is_tightest_now(
    gateway: RunningGateway, admin: dict[str, str]
) -> None:
    key = gateway.make_key(60_000, team="tight", quota_units_per_day=20_000, quota_units_per_month=40_000)
    bare = gateway.make_key(team="tight")
    assert gateway.generate(key, n=2).status == gateway.generate(bare, n=1).status == 200
    lightmeter("teams", "update", "tight", "--quota-per-month", "90000", environment=admin)

    def row(account: str, *command: str) -> list[str]:
        listed = lightmeter(*command, "--all", environment=admin).splitlines()
        (found,) = [line.split() for line in listed if line.split()[0] == account]
        return found

    keys = ("keys", "list", "--team", "tight")
    assert row(key_id(key), *keys)[1:7] == ["20,000", "day", "10,000", "0", "10,000", "2"]
    lightmeter("keys", "update", key_id(key), "--quota", "15000", environment=admin)
    assert row(key_id(key), *keys)[1:7] == ["15,000", "total", "10,000", "0", "5,000", "2"]
    assert row(key_id(bare), *keys)[1:7] == ["-", "-", "5,000", "0", "-", "1"]
    assert row("tight", "teams", "list")[1:7] == ["90,000", "month", "15,000", "0", "75,000", "3"]


def test_a_key_makes_a_new_team_only_where_that_is_said(gateway: RunningGateway, admin: dict[str, str]) -> None:
    refused = run("keys", "create", "--team", "cli-tipo", environment=admin)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "There is no team 'cli-tipo'. To make it with this key, add --new-team." in refused.stderr
    assert gateway.admin("GET", "/admin/v1/teams/cli-tipo").status == 404
    for flags in (("--new-team",), (), ("--new-team",)):
        lightmeter("keys", "create", "--team", "cli-typo", *flags, environment=admin)
    assert len(gateway.admin("GET", "/admin/v1/keys?team=cli-typo").json["data"]) == 3


@pytest.mark.parametrize(
    "command",
    [("keys", "list"), ("ledger", "list"), ("ledger", "list", "--by-month"), ("ledger", "export"), ("audit", "list")],
)
def test_a_list_of_a_team_that_does_not_exist_says_so(
    gateway: RunningGateway, admin: dict[str, str], command: tuple[str, ...]
) -> None:
    done = run(*command, "--team", "nobody", "--json", environment=admin)
    assert done.returncode == 1
    assert "There is no team 'nobody'." in done.stderr
    gateway.admin("POST", "/admin/v1/teams", body={"id": "idle"})
    lightmeter(*command, "--team", "idle", "--json", environment=admin)


def test_what_does_not_exist_has_no_entries_and_no_books_that_are_right(admin: dict[str, str]) -> None:
    done = run("ledger", "list", "--key", "nobody_0000000000", environment=admin)
    assert (done.returncode, "There is no key 'nobody_0000000000'." in done.stderr) == (1, True)
    done = run("ledger", "verify", "--team", "nobody", environment=admin)
    assert (done.returncode, "There is no team 'nobody'." in done.stderr) == (2, True)


def test_the_ledger_is_searched_and_added_up(gateway: RunningGateway, admin: dict[str, str]) -> None:
    key = gateway.make_key(100_000, team="searched")
    answers = [gateway.generate(key, n=count) for count in (1, 2, 3)]
    entries = gateway.ledger(key)

    def listed(*flags: str) -> list[str]:
        lines = lightmeter("ledger", "list", "--team", "searched", *flags, environment=admin).splitlines()
        assert lines[0].split()[0] == "ENTRY"
        return [line.split()[0] for line in lines[1:] if line.startswith("searched_")]

    ids = [entry["id"] for entry in entries]
    assert listed() == ids
    assert listed("--newest-first") == ids[::-1]
    assert listed("--newest-first", "--limit", "2") == ids[:0:-1]
    assert listed("--newest-first", "--cursor", ids[1]) == ids[:1]
    assert listed("--request", answers[1].headers["x-request-id"]) == ids[1:2]
    assert listed("--since", entries[1]["at"], "--until", entries[2]["at"]) == [
        entry["id"] for entry in entries if entries[1]["at"] <= entry["at"] < entries[2]["at"]
    ]
    refused = run("ledger", "list", "--newest-first", environment=admin)
    assert (refused.returncode, "'order' should be 'oldest'" in refused.stderr) == (1, True)

    lightmeter("ledger", "refund", ids[1], "--reason", "black", environment=admin)
    lightmeter("keys", "grant", key_id(key), "7", "--reason", "x", environment=admin)
    by_month = ("ledger", "list", "--team", "searched", "--by-month")
    month = entries[0]["at"][:7]
    assert json.loads(lightmeter(*by_month, "--json", environment=admin))["data"] == [
        {"month": month, "team": "searched", "requests": 3, "images": 6, "quota_units": 20_000}
        | {"overage": 0, "refunded": 10_000, "granted": 7}
    ]
    table = lightmeter(*by_month, environment=admin).splitlines()
    assert table[1].split() == [month, "searched", "3", "6", "20,000", "0", "10,000", "7"]
    assert run("ledger", "list", "--by-month", "--limit", "5", environment=admin).returncode == 2


def test_a_shell_completes_commands_and_options() -> None:
    for shell in ("bash", "zsh", "fish"):
        assert "_LIGHTMETER_COMPLETE" in lightmeter("completion", shell)
    asked = {"_LIGHTMETER_COMPLETE": "bash_complete", "COMP_WORDS": "lightmeter ledger list --new", "COMP_CWORD": "3"}
    program = [str(Path(sys.executable).parent / "lightmeter")]
    done = subprocess.run(program, check=True, capture_output=True, text=True, env={**os.environ, **asked}, timeout=30)
    assert done.stdout.split() == ["plain,--newest-first"]


def test_pages(gateway: RunningGateway, admin: dict[str, str]) -> None:
    keys = [gateway.make_key(team="paged") for _ in range(3)]
    first = lightmeter("keys", "list", "--team", "paged", "--limit", "2", environment=admin)
    cursor = first.rsplit("--cursor ", 1)[1].partition(",")[0]
    rest = lightmeter("keys", "list", "--team", "paged", "--cursor", cursor, environment=admin)
    ids = {line.split()[0] for text in (first, rest) for line in text.splitlines() if line.startswith("paged_")}
    assert len(ids) == len(keys)
    everything = json.loads(lightmeter("keys", "list", "--team", "paged", "--all", "--json", environment=admin))
    assert {key["id"] for key in everything["data"]} == ids
    assert everything["next_cursor"] is None
    rest = lightmeter("keys", "list", "--team", "paged", "--all", "--cursor", cursor, environment=admin)
    assert len(rest.splitlines()) == 2
    done = run("keys", "list", "--all", "--limit", "2", environment=admin)
    assert (done.returncode, "exclude each other" in done.stderr) == (2, True)


@pytest.mark.parametrize(
    "command",
    [("keys", "list"), ("teams", "list"), ("ledger", "list"), ("audit", "list"), ("ledger", "verify")],
)
def test_every_list_is_a_table_or_json(
    gateway: RunningGateway, admin: dict[str, str], command: tuple[str, ...]
) -> None:
    gateway.generate(gateway.make_key(team="listed"))
    team = () if command[0] == "teams" else ("--team", "listed")
    assert isinstance(json.loads(lightmeter(*command, *team, "--json", environment=admin)), dict)
    assert not lightmeter(*command, *team, environment=admin).startswith("{")


def test_an_export_for_scripts(gateway: RunningGateway, admin: dict[str, str]) -> None:
    gateway.generate(gateway.make_key(team="exported"))
    (line,) = lightmeter("ledger", "export", "--team", "exported", "--json", environment=admin).splitlines()
    assert json.loads(line)["outcome"] == "delivered"


def test_serve_tells_scripts_its_addresses(provider: SampleProvider, tmp_path: Path) -> None:
    path = tmp_path / "lightmeter.toml"
    path.write_text(configuration(f"embedded:{tmp_path}/data", provider.url))
    secrets = {"SAMPLE_PROVIDER_KEY": "x", "LIGHTMETER_ADMIN_TOKEN": ADMIN_TOKEN}
    command = python_module("proxy.cli", "serve", "--config", str(path), "--json")
    with running(command, tmp_path / "log", secrets) as server:
        told = json.loads(server.wait_for_output(r"(?m)^(\{\"public\".*\})$")[1])
        assert ask("GET", f"{told['admin']}/readyz").status == 200
        assert ask("GET", f"{told['public']}/v1/key").status == 401


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("keys", "show", "nobody_0000000000"), "There is no key 'nobody_0000000000'"),
        (("keys", "create", "--team", "No Such Name"), "'team': should be 1 to 40 of a-z"),
        (("keys", "create", "--team", "a", "--new-team", "--expires-at", "yesterday"), "'expires_at'"),
        (
            ("keys", "create", "--team", "a", "--new-team", "--model", "a*b"),
            "'limits.models.0': should be a model's id",
        ),
        (("ledger", "list", "--since", "yesterday"), "'since' should be a time like"),
        (("ledger", "list", "--outcome", "nice"), "'outcome' should be one of delivered"),
        (("keys", "update", "nobody_0000000000"), "Nothing to change"),
        (("teams", "show", "nobody"), "There is no team 'nobody'"),
        (
            ("teams", "update", "nobody", "--quota", "much"),
            "'much' should be a whole number, US dollars like '$250', or 'none'",
        ),
        (("teams", "create", "some", "--images-per-minute", "0"), "'limits.images_per_minute'"),
    ],
)
def test_mistakes_are_told(admin: dict[str, str], arguments: tuple[str, ...], message: str) -> None:
    done = run(*arguments, environment=admin)
    assert done.returncode != 0
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_no_gateway_and_no_token(admin: dict[str, str]) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    done = run("keys", "list", environment={**admin, "LIGHTMETER_ADMIN_URL": url})
    assert done.returncode == 1
    assert f"no gateway answers at {url}" in done.stderr
    done = run("keys", "list", environment={"LIGHTMETER_ADMIN_URL": admin["LIGHTMETER_ADMIN_URL"]})
    assert done.returncode == 1
    assert "set LIGHTMETER_ADMIN_TOKEN" in done.stderr
    done = run("keys", "list", environment={**admin, "LIGHTMETER_ADMIN_TOKEN": "wrong"})
    assert done.returncode == 1
    assert "admin token" in done.stderr


def test_config_check(tmp_path: Path) -> None:
    path = tmp_path / "lightmeter.toml"
    path.write_text(configuration("embedded:./data", "http://127.0.0.1:1"))
    secret = {"SAMPLE_PROVIDER_KEY": "x"}
    assert "good: 1 provider(s), 1 model(s)" in lightmeter("config", "check", "--config", str(path), environment=secret)
    answer = json.loads(lightmeter("config", "check", "--config", str(path), "--json", environment=secret))
    assert answer.pop("store")[0]["text"].startswith("appendonly yes, appendfsync everysec: a crash of the store's")
    assert answer == {"ok": True, "mistakes": [], "providers": ["sample"], "models": ["acme/image-1"], "warnings": []}

    path.write_text(path.read_text().replace('"embedded:./data"', '"mysql://x"').replace("drain_seconds", "drane"))
    done = run("config", "check", "--config", str(path), environment=secret)
    assert done.returncode == 1
    assert f"{path}: store.url: should be embedded:PATH" in done.stderr
    assert f"{path}: server.drane: is not a setting" in done.stderr
    assert run("config", "check", "--config", str(path), "--json", environment=secret).returncode == 1
    assert not (tmp_path / "data").exists()


def test_an_upload_folder_that_cannot_be_written_to_is_told_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    path, folder = tmp_path / "lightmeter.toml", tmp_path / "file" / "uploads"
    path.write_text(
        configuration(f"embedded:{tmp_path}/data", "http://127.0.0.1:1", server={"upload_folder": str(folder)})
    )
    done = run("serve", "--config", str(path), environment={"SAMPLE_PROVIDER_KEY": "x"})
    assert done.returncode == 1
    assert f"server.upload_folder: {folder} cannot be written to (Not a directory): name another folder" in done.stderr


def test_a_variable_that_is_no_setting_is_warned_of_at_the_start(provider: SampleProvider, tmp_path: Path) -> None:
    toml = configuration(f"embedded:{tmp_path}/data", provider.url)
    with running_gateway(tmp_path, toml, {"LIGHTMETER_SERVER_LISTN": "127.0.0.1:1"}) as gateway:
        assert "LIGHTMETER_SERVER_LISTN: is not a setting, and has no effect; was LIGHTMETER_SERVER_LISTEN meant?" in (
            gateway.server.output
        )


def test_the_example_configuration_is_good(tmp_path: Path) -> None:
    example = Path(__file__).parents[2] / "config" / "lightmeter.toml"
    keys = {"OPENAI_API_KEY": "sk-x"}
    assert "good" in lightmeter("config", "check", "--config", str(example), environment=keys, folder=tmp_path)
    done = run("config", "check", "--config", str(example))
    assert "export it with the key of provider 'openai'" in done.stderr


def test_a_port_in_use_is_told(gateway: RunningGateway, provider: SampleProvider, tmp_path: Path) -> None:
    taken = gateway.url.removeprefix("http://")
    toml = configuration(f"embedded:{tmp_path}/data", provider.url, server={"listen": taken})
    path = tmp_path / "lightmeter.toml"
    path.write_text(toml)
    done = run("serve", "--config", str(path), environment={"SAMPLE_PROVIDER_KEY": "x"})
    assert done.returncode == 1
    assert f"server.listen: {taken} is in use" in done.stderr
    assert "Traceback" not in done.stderr
    done = run("demo", "--port", taken.rpartition(":")[2], folder=tmp_path)
    assert done.returncode == 1
    assert f"--port: {taken} is in use: choose another port, or free ones with '" in done.stderr
    assert "demo --port 0'" in done.stderr
    done = run("sample-provider", "--port", provider.url.rpartition(":")[2])
    assert done.returncode == 1
    assert "--port 0" in done.stderr


def test_a_data_folder_in_use_is_told(provider: SampleProvider, tmp_path: Path) -> None:
    toml = configuration(f"embedded:{tmp_path}/data", provider.url)
    with running_gateway(tmp_path / "a", toml) as gateway:
        done = run(
            *("serve", "--config", str(tmp_path / "a" / "lightmeter.toml")), environment={"SAMPLE_PROVIDER_KEY": "x"}
        )
        assert done.returncode == 1
        assert f"in use by another Lightmeter (process {gateway.server.process.pid})" in done.stderr


def test_the_admin_token_is_made_once_and_kept_private(provider: SampleProvider, tmp_path: Path) -> None:
    toml = configuration(f"embedded:{tmp_path}/data", provider.url)
    tokens = []
    for _ in range(2):
        with running_gateway(tmp_path, toml, {"LIGHTMETER_ADMIN_TOKEN": ""}) as gateway:
            path = tmp_path / "data" / "admin-token"
            assert path.stat().st_mode & 0o777 == 0o600
            tokens.append(path.read_text().strip())
            environment = {"LIGHTMETER_ADMIN_URL": gateway.admin_url, "LIGHTMETER_ADMIN_TOKEN": tokens[-1]}
            assert json.loads(lightmeter("keys", "list", "--json", environment=environment))["data"] == []
            gateway.server.wait_to_say(str(path))
            assert tokens[-1] not in gateway.server.output
    assert tokens[0] == tokens[1]
