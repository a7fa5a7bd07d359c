from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

from tests.support.gateways import PROVIDER_KEY, RunningGateway, ask, configuration, running_gateway, sample_provider

THIRTY_MB = 30_000_000


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    """A gateway whose provider answers with 30 MB images."""
    folder = tmp_path_factory.mktemp("large")
    with (
        sample_provider(folder, "--image-bytes", str(THIRTY_MB)) as provider,
        running_gateway(folder, configuration(f"embedded:{folder}/data", provider.url)) as gateway,
    ):
        yield gateway


async def fetch(gateway: RunningGateway, key: str, *, images: int = 1) -> tuple[int, str]:
    """The length and the digest of an answer that is not kept."""
    digest, length = hashlib.sha256(), 0
    async with (
        aiohttp.ClientSession() as session,
        session.post(
            f"{gateway.url}/v1/images/generations",
            json={"model": "acme/image-1", "prompt": "large", "n": images},
            headers={"Authorization": f"Bearer {key}"},
        ) as response,
    ):
        assert response.status == 200
        async for piece in response.content.iter_any():
            digest.update(piece)
            length += len(piece)
    return length, digest.hexdigest()


async def peak_growth(gateway: RunningGateway, *fetches: asyncio.Task[tuple[int, str]]) -> int:
    """How much more memory than before the gateway held at any time until all are done."""
    before = peak = gateway.memory_bytes()
    while not all(task.done() for task in fetches):
        peak = max(peak, gateway.memory_bytes())
        await asyncio.sleep(0.005)
    await asyncio.gather(*fetches)
    return max(peak, gateway.memory_bytes()) - before


async def test_a_30_mb_answer_takes_less_than_2_mb(large: RunningGateway) -> None:
    key = large.make_key()
    # What a first answer of any size makes the interpreter load is not what is measured.
    await fetch(large, key)
    task = asyncio.create_task(fetch(large, key))
    assert await peak_growth(large, task) < 2_000_000
    assert task.result()[0] > THIRTY_MB
    large.check_books(key)


async def test_ten_at_once_take_less_than_20_mb(large: RunningGateway) -> None:
    key = large.make_key()
    await fetch(large, key)
    tasks = [asyncio.create_task(fetch(large, key)) for _ in range(10)]
    assert await peak_growth(large, *tasks) < 20_000_000
    assert len({task.result() for task in tasks}) == 1
    assert large.quota(key)["posted"] == 11 * 5_000
    large.check_books(key)


async def test_a_client_that_reads_slowly_holds_the_provider_back(large: RunningGateway) -> None:
    key = large.make_key()
    async with (
        aiohttp.ClientSession(read_bufsize=4_096) as session,
        session.post(
            f"{large.url}/v1/images/generations",
            json={"model": "acme/image-1", "prompt": "large"},
            headers={"Authorization": f"Bearer {key}"},
        ) as response,
    ):
        before = large.memory_bytes()
        await response.content.read(1_000)
        # Nothing to wait for: what is looked at is that memory does not grow while nobody reads.
        for _ in range(20):
            await asyncio.sleep(0.01)
            assert large.memory_bytes() - before < 8_000_000
        length = 1_000
        async for piece in response.content.iter_any():
            length += len(piece)
        assert length > THIRTY_MB
    large.check_books(key)


def test_the_answer_is_the_providers_own_image(tmp_path: Path) -> None:
    with (
        sample_provider(tmp_path, "--answer", "b64_json") as provider,
        running_gateway(tmp_path, configuration(f"embedded:{tmp_path}/data", provider.url)) as gateway,
    ):
        key = gateway.make_key()
        body = {"model": "image-1", "prompt": "a translucent blue cube", "size": "1536x1024"}
        direct = ask("POST", f"{provider.url}/v1/images/generations", key=PROVIDER_KEY, body=body)
        through = gateway.generate(key, size="1536x1024")
    pictures = [base64.b64decode(answer.json["data"][0]["b64_json"]) for answer in (direct, through)]
    assert pictures[0] == pictures[1]
    assert pictures[0].startswith(b"\x89PNG")


async def test_a_connection_serves_on_after_a_streamed_answer(large: RunningGateway) -> None:
    key = large.make_key()
    made: list[object] = []

    async def count(*connection: object) -> None:
        made.append(connection)

    trace = aiohttp.TraceConfig()
    trace.on_connection_create_end.append(count)
    headers = {"Authorization": f"Bearer {key}"}
    async with aiohttp.ClientSession(trace_configs=[trace], headers=headers) as session:
        for prompt in ("large", "[sample image_bytes=1000] small", "[sample image_bytes=200000] large", "large"):
            body = {"model": "acme/image-1", "prompt": prompt}
            async with session.post(f"{large.url}/v1/images/generations", json=body) as response:
                assert response.status == 200
                assert (await response.json())["data"]
    assert len(made) == 1
    large.check_books(key)
