"""What a request has read is let go when it has ended, and not only when the garbage collector comes."""

from __future__ import annotations

import asyncio
import gc
import json
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any
from unittest.mock import patch

import aiohttp
import pytest

from proxy.app import Gateway
from proxy.domain.requests.chat import ChatRequest
from proxy.domain.requests.image import ImageRequest
from proxy.settings.settings import load_settings
from proxy.upstream.breaker import FairBreaker
from proxy.upstream.exchange import Exchange
from tests.support.gateways import ADMIN_TOKEN, PROVIDER_KEY, SampleProvider, configuration
from tests.support.processes import free_port

REQUESTS = 400
AT_ONCE = 20
PROMPT = "a translucent blue cube " * 1_500
"""So much that what is kept of all would be 14 MB."""

KEPT_BYTES_MOST = 3_000_000
"""A fifth of that."""

# Small pictures: what is drawn is none of what this is about.
GOOD = {"model": "acme/image-1", "prompt": PROMPT, "size": "64x64"}
CHAT = {"model": "acme/image-1", "modalities": ["image"], "messages": [{"role": "user", "content": PROMPT}]}
UNREACHABLE = "provider is unreachable"
WAYS: dict[str, tuple[str, dict[str, Any], int]] = {
    "good": ("/v1/images/generations", GOOD, 200),
    "unknown parameter": ("/v1/images/generations", {**GOOD, "seed_phrase": PROMPT}, 400),
    "bad size": ("/v1/images/generations", {**GOOD, "size": "+1x1"}, 400),
    "no such model": ("/v1/images/generations", {**GOOD, "model": "nobody/none"}, 404),
    "provider refuses": ("/v1/images/generations", {**GOOD, "prompt": "[sample status=400] " + PROMPT}, 400),
    "provider fails": ("/v1/images/generations", {**GOOD, "prompt": "[sample status=500] " + PROMPT}, 502),
    UNREACHABLE: ("/v1/images/generations", GOOD, 502),
    "good chat": ("/v1/chat/completions", CHAT, 200),
    "deep": ("/v1/chat/completions", {**CHAT, "metadata": [[[[[[[[PROMPT]]]]]]]], "n": 2}, 400),
}


async def send(session: aiohttp.ClientSession, url: str, body: dict[str, Any], status: int, count: int) -> None:
    # One text for all: the client is in this process as well, and what it keeps of its requests is not asked for.
    text, headers = json.dumps(body).encode(), {"Content-Type": "application/json"}

    async def some(number: int) -> None:
        for _ in range(number):
            async with session.post(url, data=text, headers=headers) as answer:
                await answer.read()
                assert answer.status == status

    await asyncio.gather(*[some(count // AT_ONCE) for _ in range(AT_ONCE)])


async def kept_after(gateway: Gateway, way: str) -> tuple[int, int]:
    """Bytes, and objects of a request, that are there after so many requests and were not before."""
    path, body, status = WAYS[way]
    url = gateway.public_address + path
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {await make_key(gateway)}"}) as session:
        tracemalloc.start()
        await send(session, url, body, status, 2 * AT_ONCE)
        gc.collect()
        gc.disable()
        before, living = tracemalloc.get_traced_memory()[0], count_living()
        await send(session, url, body, status, REQUESTS)
        await asyncio.sleep(0)
        kept = tracemalloc.get_traced_memory()[0] - before, count_living() - living
        tracemalloc.stop()
        gc.enable()
    return kept


def count_living() -> int:
    return sum(isinstance(one, ImageRequest | ChatRequest | Exchange) for one in gc.get_objects())


async def make_key(gateway: Gateway) -> str:
    url = f"{gateway.admin_address}/admin/v1/keys"
    async with (
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {ADMIN_TOKEN}"}) as session,
        session.post(url, json={"team": "acme"}) as answer,
    ):
        return str((await answer.json())["key"])


def measure(way: str, folder: str, provider_url: str) -> None:
    """Print what is kept, in a process in which nothing else has run."""
    path = Path(folder) / "lightmeter.toml"
    if way == UNREACHABLE:
        provider_url = f"http://127.0.0.1:{free_port()}"
    path.write_text(configuration(f"embedded:{folder}/data", provider_url))
    environment = {"LIGHTMETER_ADMIN_TOKEN": ADMIN_TOKEN, "SAMPLE_PROVIDER_KEY": PROVIDER_KEY}

    async def run() -> tuple[int, int]:
        gateway = Gateway(load_settings(path, environment), environment)
        await gateway.start()
        try:
            return await kept_after(gateway, way)
        finally:
            gc.enable()
            await gateway.stop()

    # Every request tries to connect, also where nobody has answered so far.
    with patch.object(FairBreaker, "allows", return_value=True):
        sys.stdout.write(json.dumps(asyncio.run(run())))


@pytest.mark.parametrize("way", WAYS)
def test_no_cycle_holds_a_request(tmp_path: Path, provider: SampleProvider, way: str) -> None:
    program = f"from {__name__} import measure; measure({way!r}, {str(tmp_path)!r}, {provider.url!r})"
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=100
    )
    kept_bytes, kept_objects = json.loads(done.stdout)
    assert kept_objects <= AT_ONCE
    assert kept_bytes < KEPT_BYTES_MOST
