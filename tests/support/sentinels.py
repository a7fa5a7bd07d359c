"""A primary, a replica and three sentinels, each a real process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import redis

from tests.support.certificates import server_flags
from tests.support.processes import Server, free_port, running, wait_for
from tests.support.stores import BACKENDS, server_binary, store_server

SERVICE = "quota"
PASSWORD = "made-up-password"
SENTINEL_PASSWORD = "another-made-up-password"
SENTINELS = 3


@dataclass(frozen=True)
class WatchedStore:
    """A store whose primary three sentinels watch; ``url`` is its address."""

    url: str
    primary: Server
    primary_port: int
    sentinel_ports: list[int]
    sentinels: list[Server]
    sentinel_tls_ports: list[int]

    def primary_of_now(self) -> int:
        """The port that the first sentinel tells."""
        with redis.Redis(port=self.sentinel_ports[0], password=SENTINEL_PASSWORD) as sentinel:
            host_and_port = sentinel.execute_command("SENTINEL", "get-master-addr-by-name", SERVICE)
            return int(host_and_port[1])


@contextmanager
def watched_store(folder: Path, backend: str = BACKENDS[0], *, tls: bool = False) -> Iterator[WatchedStore]:
    """All of them, for as long as the block lasts; with ``tls``, that is how they speak to each other."""
    login = ("--requirepass", PASSWORD, "--masterauth", PASSWORD, "--repl-diskless-sync-delay", "0")
    for name in ("primary", "replica"):
        (folder / name).mkdir(parents=True)
    tls_ports = [free_port() for _ in range(2 + SENTINELS)] if tls else []
    flags = [server_flags(folder, each) for each in tls_ports] or [()] * (2 + SENTINELS)
    with ExitStack() as stack:
        primary_url, primary = stack.enter_context(store_server(backend, folder / "primary", *login, *flags[0]))
        port = urlsplit(primary_url).port or 0
        known_port = tls_ports[0] if tls else port
        stack.enter_context(
            store_server(backend, folder / "replica", *login, *flags[1], "--replicaof", f"127.0.0.1 {known_port}")
        )
        with redis.Redis(port=port, password=PASSWORD) as client:
            wait_for(lambda: client.wait(1, 100) == 1, "the replica's acknowledgement")
        ports = [free_port() for _ in range(SENTINELS)]
        sentinels = []
        for sentinel_port in ports:
            at = folder / f"sentinel-{sentinel_port}"
            made = _sentinel(backend, at, sentinel_port, known_port, flags[2 + ports.index(sentinel_port)])
            sentinels.append(stack.enter_context(made))
        for sentinel_port in ports:
            wait_for(lambda at=sentinel_port: _sees_all(at), "a sentinel to know the others")  # type: ignore[misc]
        hosts = ",".join(f"127.0.0.1:{sentinel_port}" for sentinel_port in tls_ports[2:] or ports)
        url = f"redis+sentinel://:{PASSWORD}@{hosts}/{SERVICE}?sentinel_password={SENTINEL_PASSWORD}"
        if tls:
            url = f"rediss{url.removeprefix('redis')}&ssl_ca_certs={folder}/server.crt"
        yield WatchedStore(url, primary, known_port, ports, sentinels, tls_ports[2:])


@contextmanager
def _sentinel(backend: str, folder: Path, port: int, primary_port: int, flags: Sequence[str]) -> Iterator[Server]:
    folder.mkdir()
    words = iter(flags)
    tls = "".join(f"{name.removeprefix('--')} {value}\n" for name, value in zip(words, words, strict=True))
    path = folder / "sentinel.conf"
    path.write_text(
        f"port {port}\nbind 127.0.0.1\ndir {folder}\n{tls}"
        f"requirepass {SENTINEL_PASSWORD}\nsentinel sentinel-pass {SENTINEL_PASSWORD}\n"
        f"sentinel monitor {SERVICE} 127.0.0.1 {primary_port} 2\n"
        f"sentinel auth-pass {SERVICE} {PASSWORD}\n"
        f"sentinel down-after-milliseconds {SERVICE} 500\n"
        f"sentinel failover-timeout {SERVICE} 3000\n"
    )
    with running([server_binary(backend), str(path), "--sentinel"], folder / "sentinel.log") as server:
        yield server


def _sees_all(port: int) -> bool:
    with redis.Redis(port=port, password=SENTINEL_PASSWORD) as sentinel:
        try:
            state = sentinel.sentinel_master(SERVICE)
        except redis.RedisError:
            return False
        return bool(state["num-other-sentinels"] == SENTINELS - 1 and state["num-slaves"] == 1)
