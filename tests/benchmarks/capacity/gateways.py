"""What requests and connections cost the gateway: processor time and resident memory of its process."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import psutil

from tests.benchmarks.servers import MODEL, PATH, QUOTA_UNITS, cpu_seconds
from tests.benchmarks.throughput import LARGE, SMALL, Load
from tests.support.gateways import ask
from tests.support.processes import python_module, running

WAITING_MODEL = "waiting/image-1"
ROUNDS = 8
STEP = 100
"""So many requests are sent at a time, so that none waits for the store until it gives up."""

WAIT_S = 60

CONFIGURATION = """
[server]
listen = "127.0.0.1:0"
drain_seconds = 0
[admin]
listen = "127.0.0.1:0"
[store]
url = "embedded:{folder}/data"

[[providers]]
name = "sample"
base_url = "{sample}/v1"
api_key_env = "SAMPLE_PROVIDER_KEY"

[[models]]
id = "{model}"
provider = "sample"
upstream_model = "image-1"
token_multiplier = "1.5"
parameters = ["n", "size", "user"]

[[providers]]
name = "waiting"
base_url = "{waiting}/v1"
api_key_env = "SAMPLE_PROVIDER_KEY"
max_connections = 100_000

[[models]]
id = "{waiting_model}"
provider = "waiting"
upstream_model = "image-1"
token_multiplier = "1.5"
"""


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is measured."""

    in_flight: int = 2_000
    small_requests: int = 500
    large_requests: int = 16


@dataclass(frozen=True, slots=True)
class GatewayCosts:
    """Microseconds of processor time, the least of some rounds, and bytes of resident memory."""

    small_us: float
    large_us: float
    connection: float
    in_flight: float
    worker: float


class WaitingProvider:
    """A provider that takes requests and answers none."""

    def __init__(self) -> None:
        self.held = 0
        self._changed = asyncio.Event()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        """Its address."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=4_096)
        async with server:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            # The gateway has gone; its connections are read to their ends.
            await self._wait_until(lambda: not self.held)

    async def wait_for(self, held: int) -> None:
        """Return when it has so many requests. Raises TimeoutError."""
        await self._wait_until(lambda: self.held >= held)

    async def _wait_until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(WAIT_S):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    def _count(self, change: int) -> None:
        self.held += change
        self._changed.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer):
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
            await reader.readexactly(length)
            self._count(1)
            with contextlib.suppress(ConnectionError):
                await reader.read()
            self._count(-1)


async def measure(folder: Path, scale: Scale) -> GatewayCosts:
    """Everything on one gateway, its store the embedded one."""
    provider = WaitingProvider()
    async with provider.running() as waiting:
        with _running_gateway(folder, waiting) as (public, key, process):
            worker = process.memory_info().rss
            costs = [await _cost_us(public, key, process, load, count) for load, count in _loads(scale)]
            connection, in_flight = await _bytes(public, key, process, provider, scale.in_flight)
    return GatewayCosts(costs[0], costs[1], connection, in_flight, worker)


def _loads(scale: Scale) -> list[tuple[Load, int]]:
    return [(SMALL, scale.small_requests), (LARGE, scale.large_requests)]


async def _cost_us(public: str, key: str, process: psutil.Process, load: Load, requests: int) -> float:
    """Processor time of one request under steady load, the least of some rounds."""
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    connector = aiohttp.TCPConnector(limit=load.connections)
    async with aiohttp.ClientSession(public, connector=connector, headers=headers) as session:

        async def ask() -> None:
            async with session.post(PATH, data=load.request.body) as response:
                size = 0
                async for piece in response.content.iter_any():
                    size += len(piece)
                if response.status != 200 or size < load.answer_bytes:
                    raise RuntimeError(f"the gateway answers {response.status} with {size:,} bytes")

        async def ask_on(each: Iterator[int]) -> None:
            for _ in each:
                await ask()

        found = []
        for _ in range(ROUNDS + 1):
            begun = cpu_seconds(process)
            turns = iter(range(requests))
            await asyncio.gather(*(ask_on(turns) for _ in range(load.connections)))
            found.append((cpu_seconds(process) - begun) / requests * 1e6)
    # The first one opens connections and imports what is imported late.
    return min(found[1:])


async def _bytes(
    public: str, key: str, process: psutil.Process, provider: WaitingProvider, count: int
) -> tuple[float, float]:
    """Bytes of an idle connection, and what a request that waits for its provider has beside one."""
    host, _, port = public.removeprefix("http://").partition(":")
    head = f"Host: {host}:{port}\r\nAuthorization: Bearer {key}\r\n"
    look = f"GET /v1/models/{MODEL} HTTP/1.1\r\n{head}\r\n".encode()
    body = json.dumps({"model": WAITING_MODEL, "prompt": "A translucent blue cube, soft light", "n": 1}).encode()
    wish = f"POST {PATH} HTTP/1.1\r\n{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    begun = process.memory_info().rss
    streams: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def open_one() -> None:
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(look)
        status = await reader.readline()
        if b" 200 " not in status:
            raise RuntimeError(f"the gateway answers {status!r}")
        streams.append((reader, writer))

    for _ in range(0, count, STEP):
        await asyncio.gather(*(open_one() for _ in range(STEP)))
    idle = process.memory_info().rss
    for start in range(0, count, STEP):
        for _reader, writer in streams[start : start + STEP]:
            writer.write(wish.encode() + body)
        await provider.wait_for(start + STEP)
    waiting = process.memory_info().rss
    for _reader, writer in streams:
        writer.close()
    return (idle - begun) / count, (waiting - idle) / count


@contextmanager
def _running_gateway(folder: Path, waiting: str) -> Iterator[tuple[str, str, psutil.Process]]:
    """Its public address, a key, and the process that does its work."""
    token = secrets.token_urlsafe(32)
    path = folder / "lightmeter.toml"
    environment = {"LIGHTMETER_ADMIN_TOKEN": token, "SAMPLE_PROVIDER_KEY": "sample"}
    with running(python_module("proxy.sample_provider", "--port", "0"), folder / "provider.log") as sample:
        address = sample.wait_for_output(r"sample provider on (http://\S+)")[1]
        path.write_text(
            CONFIGURATION.format(
                folder=folder, sample=address, waiting=waiting, model=MODEL, waiting_model=WAITING_MODEL
            )
        )
        command = python_module("proxy.cli", "serve", "--config", str(path))
        with running(command, folder / "gateway.log", environment) as gateway:
            found = gateway.wait_for_output(r"listening on (http://[0-9.:]+), admin on (http://[0-9.:]+)")
            key = _make_key(found[2], token)
            yield found[1], key, psutil.Process(gateway.process.pid)


def _make_key(admin: str, token: str) -> str:
    body = {"team": "bench", "limits": {"quota_units": QUOTA_UNITS}}
    answer = ask("POST", f"{admin}/admin/v1/keys", key=token, body=body)
    return str(answer.json["key"])
