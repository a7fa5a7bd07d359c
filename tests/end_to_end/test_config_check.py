"""``lightmeter config check``: it looks at the store and the folders, and tells every mistake at once."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.end_to_end.test_command_line import run
from tests.end_to_end.test_store_over_tls import SecureStore, store
from tests.support.gateways import configuration
from tests.support.processes import free_port, wait_for
from tests.support.stores import store_server

PASSWORD = "made-up-password"
__all__ = ["store"]


@pytest.fixture(scope="module")
def primary(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The place of a store that asks for a password."""
    with store_server("valkey", tmp_path_factory.mktemp("primary"), "--requirepass", PASSWORD) as (url, _):
        yield url.removeprefix("redis://").removesuffix("/0")


@pytest.fixture(scope="module")
def replica(primary: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The place of its replica."""
    host, _, port = primary.partition(":")
    flags = ("--replicaof", f"{host} {port}", "--masterauth", PASSWORD, "--repl-diskless-sync-delay", "0")
    with store_server("valkey", tmp_path_factory.mktemp("replica"), *flags) as (url, _):
        with redis.Redis.from_url(url) as client:
            wait_for(lambda: client.info("replication")["master_link_status"] == "up", "the replica")
        yield url.removeprefix("redis://").removesuffix("/0")


def check(
    folder: Path, store_url: str, *flags: str, environment: dict[str, str] | None = None, **changes: Any
) -> subprocess.CompletedProcess[str]:
    changes["server"] = {"data_folder": str(folder / "data"), **changes.get("server", {})}
    changes["store"] = {"timeout": 1, **changes.get("store", {})}
    (folder / "lightmeter.toml").write_text(configuration(store_url, "http://127.0.0.1:1", **changes))
    done = run(
        "config", "check", *flags, folder=folder, environment={"SAMPLE_PROVIDER_KEY": "x", **(environment or {})}
    )
    assert "Traceback" not in done.stdout + done.stderr
    assert PASSWORD not in done.stdout + done.stderr
    return done


def test_a_store_that_can_be_used_is_good(tmp_path: Path, primary: str) -> None:
    done = check(tmp_path, f"redis://:{PASSWORD}@{primary}/0")
    assert (done.returncode, done.stderr) == (0, "")
    assert "lightmeter.toml: good: 1 provider(s), 1 model(s)" in done.stdout
    assert "store: " in done.stdout
    # It has looked, and left nothing.
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("redis://:wrong@{primary}/0", ["WRONGPASS", "the password in store.url is wrong"]),
        ("redis://{primary}/0", ["NOAUTH", "it wants a password"]),
        (f"redis://:{PASSWORD}@{{primary}}/99", ["DB index is out of range", "a lower number"]),
        ("redis://:secret@{replica}/0", ["it has no password"]),
        ("redis://{replica}/0", ["READONLY", "it is a replica; point store.url at the primary"]),
        ("redis://127.0.0.1:{free}/0", ["nothing listens there"]),
        ("redis://no-such-host.invalid/0", ["no host has that name"]),
        ("unix:///no/such/socket", ["there is no such socket"]),
        (f"rediss://:{PASSWORD}@{{primary}}/0", ["redis:// is without TLS"]),
        ("redis+sentinel://127.0.0.1:{free}/quota", ["no sentinel knows a primary of 'quota'"]),
        (f"redis+sentinel://:{PASSWORD}@{{primary}}/quota", ["no sentinel knows a primary of 'quota'"]),
    ],
)
def test_a_store_that_cannot_be_used_is_told_why_and_what_to_do(
    tmp_path: Path, primary: str, replica: str, address: str, words: list[str]
) -> None:
    url = address.format(primary=primary, replica=replica, free=free_port())
    done = check(tmp_path, url)
    assert done.returncode == 1
    assert "good" not in done.stdout
    (line,) = done.stderr.splitlines()
    assert line.startswith("Error: lightmeter.toml: store.url: the store cannot be used: ")
    assert [word for word in words if word not in line] == []


def test_without_looking_around_the_file_alone_is_checked(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    places: dict[str, object] = {"data_folder": str(tmp_path / "file" / "data")}
    done = check(tmp_path, f"redis://127.0.0.1:{free_port()}/0", "--offline", server=places)
    assert (done.returncode, done.stderr) == (0, "")
    assert "good" in done.stdout


def test_replicas_that_are_too_few_are_told(tmp_path: Path, primary: str, replica: str) -> None:
    assert replica
    done = check(tmp_path, f"redis://:{PASSWORD}@{primary}/0", store={"min_replicas": 3})
    assert done.returncode == 1
    assert "store.min_replicas is 3 and 1 replica(s) are connected" in done.stderr


def test_a_database_that_is_no_number_is_no_address(tmp_path: Path, primary: str) -> None:
    done = check(tmp_path, f"redis://{primary}/abc")
    assert done.returncode == 1
    assert "store.url: should have the number of a database as its path" in done.stderr


@pytest.mark.parametrize(
    ("scheme", "host", "options", "words"),
    [
        ("rediss", "localhost", {}, "whom its certificate is of, or by, is not what was expected"),
        ("rediss", "127.0.0.1", {"ssl_ca_certs": "authority.crt"}, "whom its certificate is of, or by"),
        ("redis", "localhost", {}, "where it speaks TLS on that port, store.url is rediss://"),
    ],
)
def test_wrong_tls_is_told(
    tmp_path: Path, store: SecureStore, scheme: str, host: str, options: dict[str, str], words: str
) -> None:
    files = {name: f"{store.folder}/{file}" for name, file in options.items()}
    url = store.url(host=host, **files) if scheme == "rediss" else f"redis://{host}:{store.port}/0"
    done = check(tmp_path, url)
    assert done.returncode == 1
    assert words in done.stderr


def test_an_embedded_store_without_a_server_is_told(tmp_path: Path) -> None:
    done = check(tmp_path, f"embedded:{tmp_path}/data", store={"server": "no-such-server"})
    assert done.returncode == 1
    assert "lightmeter.toml: store.server: there is no program 'no-such-server'" in done.stderr


def test_everything_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = check(
        tmp_path,
        f"redis://127.0.0.1:{free_port()}/0",
        "--json",
        environment={
            "LIGHTMETER_SERVER_LISTN": "127.0.0.1:1",
            "LIGHTMETER_LOGS_LEVEL": "loud",
            "SAMPLE_PROVIDER_KEY": "",
        },
        server={"max_body": 1, "upload_folder": str(tmp_path / "file")},
    )
    assert done.returncode == 1
    answer = json.loads(done.stdout)
    assert answer["ok"] is False
    assert [mistake.removeprefix("lightmeter.toml: ").partition(": ")[0] for mistake in answer["mistakes"]] == [
        *("server.max_body", "the environment", "providers[0].api_key_env"),
        *("the environment", "server.upload_folder", "store.url"),
    ]
