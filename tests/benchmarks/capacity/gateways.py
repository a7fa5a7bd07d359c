"""What requests and connections cost the gateway: processor time and resident memory of its process."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import psutil

from proxy.web.server.descriptors import raise_descriptor_limit
from tests.benchmarks.servers import MODEL, PATH, QUOTA_UNITS, cpu_seconds, memory_bytes
from tests.benchmarks.throughput import LARGE, SMALL, Load
from tests.support.gateways import ask
from tests.support.processes import python_module, running

WAITING_MODEL = "waiting/image-1"
ROUNDS = 8
STEP = 100
"""So many requests are sent at a time, so that none waits for the store until it gives up."""

WAIT_S = 60
POLL_S = 0.005
WAITING_PROVIDER = "tests.benchmarks.capacity.waiting_provider"

CONFIGURATION = """
[server]
listen = "127.0.0.1:0"
drain_seconds = 0
max_connections = 9_500
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

    in_flight: int = 9_000
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


async def measure(folder: Path, scale: Scale) -> GatewayCosts:
    """Two gateways, each with an embedded store: what large answers have freed would be used by what is counted."""
    with _running_gateway(folder / "idle") as (public, key, process, waiting):
        worker = process.memory_info().rss
        connection, in_flight = await _bytes(public, key, process, waiting, scale.in_flight)
    with _running_gateway(folder / "busy") as (public, key, process, _waiting):
        costs = [await _cost_us(public, key, process, load, count) for load, count in _loads(scale)]
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


async def _bytes(public: str, key: str, process: psutil.Process, waiting: str, count: int) -> tuple[float, float]:
    """Bytes of an idle connection, and what a request that waits for its provider has beside one."""
    host, _, port = public.removeprefix("http://").partition(":")
    head = f"Host: {host}:{port}\r\nAuthorization: Bearer {key}\r\n"
    look = f"GET /v1/models/{MODEL} HTTP/1.1\r\n{head}\r\n".encode()
    body = json.dumps({"model": WAITING_MODEL, "prompt": "A translucent blue cube, soft light", "n": 1}).encode()
    wish = f"POST {PATH} HTTP/1.1\r\n{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    raise_descriptor_limit()
    begun = memory_bytes(process.pid)
    streams: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def open_one() -> None:
        reader, writer = await asyncio.open_connection(host, int(port))
        streams.append((reader, writer))
        writer.write(look)
        status = await reader.readline()
        if b" 200 " not in status:
            raise RuntimeError(f"the gateway answers {status!r}")

    try:
        for _ in range(0, count, STEP):
            await asyncio.gather(*(open_one() for _ in range(STEP)))
        idle = memory_bytes(process.pid)
        for start in range(0, count, STEP):
            for _reader, writer in streams[start : start + STEP]:
                writer.write(wish.encode() + body)
            await _wait_for(waiting, start + STEP)
        return (idle - begun) / count, (memory_bytes(process.pid) - idle) / count
    finally:
        for _reader, writer in streams:
            writer.close()


async def _wait_for(waiting: str, requests: int) -> None:
    """Return when the waiting provider holds so many. Raises TimeoutError."""
    async with asyncio.timeout(WAIT_S), aiohttp.ClientSession() as session:
        while True:
            async with session.get(waiting) as response:
                if int(await response.text()) >= requests:
                    return
            await asyncio.sleep(POLL_S)


@contextmanager
def _running_gateway(folder: Path) -> Iterator[tuple[str, str, psutil.Process, str]]:
    """Its public address, a key, the process that does its work, and the address of the provider that waits."""
    folder.mkdir()
    token = secrets.token_urlsafe(32)
    path = folder / "lightmeter.toml"
    environment = {"LIGHTMETER_ADMIN_TOKEN": token, "SAMPLE_PROVIDER_KEY": "sample"}
    with ExitStack() as stack:
        sample = stack.enter_context(
            running(python_module("proxy.sample_provider", "--port", "0"), folder / "provider.log")
        )
        address = sample.wait_for_output(r"sample provider on (http://\S+)")[1]
        waits = stack.enter_context(running(python_module(WAITING_PROVIDER), folder / "waiting.log"))
        waiting = waits.wait_for_output(r"waiting provider on (http://\S+)")[1]
        path.write_text(
            CONFIGURATION.format(
                folder=folder, sample=address, waiting=waiting, model=MODEL, waiting_model=WAITING_MODEL
            )
        )
        command = python_module("proxy.cli", "serve", "--config", str(path))
        gateway = stack.enter_context(running(command, folder / "gateway.log", environment, fresh=True))
        found = gateway.wait_for_output(r"listening on (http://[0-9.:]+), admin on (http://[0-9.:]+)")
        yield found[1], _make_key(found[2], token), psutil.Process(gateway.process.pid), waiting


def _make_key(admin: str, token: str) -> str:
    body = {"team": "bench", "limits": {"quota_units": QUOTA_UNITS}}
    answer = ask("POST", f"{admin}/admin/v1/keys", key=token, body=body)
    return str(answer.json["key"])
