"""A large body is in memory once while its provider works, and not at all while its connection is idle after that."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

from proxy.app import Gateway
from proxy.settings.settings import load_settings
from tests.end_to_end.test_nothing_is_kept import make_key
from tests.support.gateways import ADMIN_TOKEN, PROVIDER_KEY, configuration

ADDRESS = "data:image/png;base64,iVBORw0KGgo".ljust(8_000_000, "A")
MODEL = "acme/image-1"
CHAT = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": ADDRESS}}]}]
WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    "edit": ("/v1/images/edits", {"prompt": "a hat", "images": [{"image_url": ADDRESS}]}),
    "chat": ("/v1/chat/completions", {"modalities": ["image"], "messages": CHAT}),
}
LOOK_S = 0.02
LOOKS = 1_000
PICTURE = "https://pictures.invalid/1.png"
MESSAGE = {"role": "assistant", "content": "", "images": [{"type": "image_url", "image_url": {"url": PICTURE}}]}
ANSWER = json.dumps(
    {"created": 1, "data": [{"url": PICTURE}], "choices": [{"index": 0, "message": MESSAGE, "finish_reason": "stop"}]}
).encode()


class Provider:
    """Reads a request, and answers it when it is told to; its connection ends with it."""

    def __init__(self) -> None:
        self.has_read = asyncio.Event()
        self.may_answer = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        left = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        while left:
            left -= len(await reader.read(left))
        self.has_read.set()
        await self.may_answer.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(ANSWER))
        writer.write(ANSWER)
        await writer.drain()
        writer.close()


async def fall_below(most: float, base: int) -> float:
    """What part of the body is held, as soon as that is less than ``most``, or when it never is."""

    def held() -> float:
        return (tracemalloc.get_traced_memory()[0] - base) / len(ADDRESS)

    for _ in range(LOOKS):
        if held() < most:
            break
        await asyncio.sleep(LOOK_S)
    return held()


async def held_by_each(folder: Path) -> dict[str, tuple[int, float, float]]:
    """Each answer's status, and what part of its body is held while the provider works, and after that."""
    provider, path = Provider(), folder / "lightmeter.toml"
    server = await asyncio.start_server(provider.serve, "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        path.write_text(configuration(f"embedded:{folder}/data", url))
        environment = {"LIGHTMETER_ADMIN_TOKEN": ADMIN_TOKEN, "SAMPLE_PROVIDER_KEY": PROVIDER_KEY}
        gateway = Gateway(load_settings(path, environment), environment)
        await gateway.start()
        try:
            return {way: await _ask(gateway, provider, *asked) for way, asked in WAYS.items()}
        finally:
            await gateway.stop()


async def _ask(gateway: Gateway, provider: Provider, path: str, fields: dict[str, Any]) -> tuple[int, float, float]:
    body = json.dumps({"model": MODEL, **fields}).encode()
    key = await make_key(gateway)
    reader, writer = await asyncio.open_connection("127.0.0.1", int(gateway.public_address.rpartition(":")[2]))
    head = f"POST {path} HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {key}\r\nContent-Type: application/json\r\n"
    tracemalloc.start()
    base = tracemalloc.get_traced_memory()[0]
    writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode())
    writer.write(body)
    del body
    await provider.has_read.wait()
    working = await fall_below(1.3, base)
    provider.may_answer.set()
    status = int((await reader.readuntil(b"\r\n\r\n")).split()[1])
    idle = await fall_below(0.3, base)
    tracemalloc.stop()
    provider.has_read.clear()
    provider.may_answer.clear()
    writer.close()
    await writer.wait_closed()
    return status, working, idle


def test_it_is_held_once_and_then_let_go(tmp_path: Path) -> None:
    program = (
        f"import asyncio, json; from pathlib import Path; from {__name__} import held_by_each; "
        f"print(json.dumps(asyncio.run(held_by_each(Path({str(tmp_path)!r})))))"
    )
    done = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, check=True, timeout=100)
    found = json.loads(done.stdout.splitlines()[-1])
    assert found.keys() == WAYS.keys()
    for status, working, idle in found.values():
        assert status == 200
        assert 0.9 < working < 1.3
        assert idle < 0.3
