"""The sample provider's routes, and the server that listens for them."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import os
import random
import signal
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

import click
import orjson
from aiohttp import web

from proxy.sample_provider import wire
from proxy.sample_provider.behaviour import BEHAVIOUR_HEADER, Behaviour
from proxy.sample_provider.drawing import DrawingUnavailable
from proxy.sample_provider.memory import PictureKey, Pictures, ReceivedRequest, RecentlyUsed, RequestLog
from proxy.sample_provider.sending import drop, send, send_endless

DEFAULT_HOST: Final = "127.0.0.1"
DEFAULT_PORT: Final = 9090

_MAX_REQUEST_BYTES: Final = 64 * 1024 * 1024
_MAX_PICTURE_IDS: Final = 10_000
_MAX_PICTURE_IDS_BYTES: Final = 64 * 1024 * 1024
_RETRY_AFTER_S: Final = 7
_TOO_MANY_REQUESTS: Final = 429
_KEEPALIVE_S: Final = 75
_SHUTDOWN_S: Final = 0.5
_BACKLOG: Final = 1024
_STDIN_READ_BYTES: Final = 64 * 1024
_JSON: Final = {"Content-Type": "application/json"}

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def build_app(behaviour: Behaviour) -> web.Application:
    """The application. Run it with ``handler_cancellation=True``, or a stalled answer outlives its client."""
    provider = _SampleProvider(behaviour)
    app = web.Application(client_max_size=_MAX_REQUEST_BYTES)
    app.add_routes(
        [
            web.post("/v1/images/generations", _with_openai_errors(provider.generate)),
            web.get("/v1/models", _with_openai_errors(provider.list_models)),
            web.get("/pictures/{id}.png", _with_openai_errors(provider.fetch_picture)),
            web.get("/healthz", provider.health),
            web.get("/stats", provider.stats),
            web.get("/requests", provider.list_requests),
            web.delete("/requests", provider.clear_requests),
            web.route("*", "/{path:.*}", _with_openai_errors(_not_found)),
        ]
    )
    app.cleanup_ctx.append(provider.lifetime)
    return app


def _with_openai_errors(handler: _Handler) -> _Handler:
    """Turn what a handler raises into OpenAI's error form."""

    async def handle(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except wire.Refusal as error:
            refusal = error
        except web.HTTPRequestEntityTooLarge:
            refusal = wire.Refusal(413, "payload_too_large", f"A body has at most {_MAX_REQUEST_BYTES} bytes.")
        except DrawingUnavailable as error:
            refusal = wire.Refusal(500, "drawing_unavailable", str(error))
        return web.Response(status=refusal.status, body=refusal.body(), headers=_JSON)

    return handle


async def _not_found(request: web.Request) -> web.StreamResponse:
    raise wire.Refusal(404, "not_found", f"The sample provider has no {request.method} {request.path}.")


class _SampleProvider:
    """One running sample provider: its behaviour, and all that changes."""

    def __init__(self, behaviour: Behaviour) -> None:
        self._behaviour = behaviour
        self._failures = random.Random(behaviour.seed)  # noqa: S311 - it has to be foreseeable
        self._log = RequestLog()
        self._pictures = Pictures()
        self._picture_keys: RecentlyUsed[str, PictureKey] = RecentlyUsed(_MAX_PICTURE_IDS, _MAX_PICTURE_IDS_BYTES)
        self._requests = 0
        self._images = 0

    async def lifetime(self, _app: web.Application) -> AsyncIterator[None]:
        """Let the drawings that are under way end before the loop does."""
        yield
        await self._pictures.close()

    async def generate(self, request: web.Request) -> web.StreamResponse:
        """``POST /v1/images/generations``."""
        body = await request.read()
        self._requests += 1
        self._log.add(ReceivedRequest(request.method, request.path, request.raw_headers, body))
        self._authorise(request)
        overrides = request.headers.get(BEHAVIOUR_HEADER, "")
        order, behaviour = wire.read_order(body, overrides, self._behaviour)
        status = self._failure(behaviour)
        succeeds = status is None and not (behaviour.malformed or behaviour.endless or behaviour.drop_connection)
        if succeeds:
            # Counted now, as a provider does: a client that leaves during the delay has caused the work all the same.
            self._images += order.images
        if behaviour.delay_ms:
            await asyncio.sleep(behaviour.delay_ms / 1000)
        if succeeds:
            return await send(request, await self._answer(request, order, behaviour), behaviour)
        return await _misbehave(request, order, behaviour, status)

    def _authorise(self, request: web.Request) -> None:
        scheme, _, key = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not key.strip():
            raise wire.Refusal(401, "invalid_api_key", "An API key is needed: Authorization: Bearer KEY.")
        if self._behaviour.api_key is not None and key.strip() != self._behaviour.api_key:
            raise wire.Refusal(401, "invalid_api_key", "Incorrect API key provided.")

    def _failure(self, behaviour: Behaviour) -> int | None:
        """The status to fail with, if this request is to fail."""
        if behaviour.status is not None:
            return behaviour.status
        if behaviour.failure_rate and self._failures.random() < behaviour.failure_rate:
            return behaviour.failure_status
        return None

    async def _answer(self, request: web.Request, order: wire.Order, behaviour: Behaviour) -> list[bytes]:
        created_s = int(time.time())
        if not order.as_base64:
            return wire.url_answer(order, self._picture_url(request, order), created_s)
        if not order.images:
            return wire.base64_answer(order, b"", created_s)
        if behaviour.image_bytes is not None:
            return wire.base64_answer(order, wire.filler(behaviour.image_bytes), created_s)
        picture = await self._pictures.get(order.prompt, order.width, order.height)
        return wire.base64_answer(order, picture.base64, created_s)

    def _picture_url(self, request: web.Request, order: wire.Order) -> str:
        """Where the picture is, once somebody asks; it is drawn then."""
        name = f"{order.width}x{order.height} {order.prompt}".encode()
        picture_id = hashlib.blake2b(name, digest_size=16).hexdigest()
        if self._picture_keys.get(picture_id) is None:
            self._picture_keys.put(picture_id, (order.prompt, order.width, order.height), len(name))
        return f"http://{request.host}/pictures/{picture_id}.png"

    async def fetch_picture(self, request: web.Request) -> web.StreamResponse:
        """``GET /pictures/{id}.png``."""
        key = self._picture_keys.get(request.match_info["id"])
        if key is None:
            raise wire.Refusal(404, "not_found", "There is no such picture, or it was forgotten.")
        picture = await self._pictures.get(*key)
        return web.Response(body=picture.png, content_type="image/png")

    async def list_models(self, request: web.Request) -> web.StreamResponse:
        """``GET /v1/models``."""
        self._authorise(request)
        return web.Response(body=wire.models_body(), headers=_JSON)

    async def health(self, _request: web.Request) -> web.StreamResponse:
        """``GET /healthz``."""
        return web.Response(text="ok\n")

    async def stats(self, _request: web.Request) -> web.StreamResponse:
        """``GET /stats``: generation requests received and images generated, since the start."""
        totals = {"requests": self._requests, "images": self._images}
        return web.Response(body=orjson.dumps(totals), headers=_JSON)

    async def list_requests(self, _request: web.Request) -> web.StreamResponse:
        """``GET /requests``: the generation requests received last, oldest first."""
        return web.Response(body=orjson.dumps(self._log.described()), headers=_JSON)

    async def clear_requests(self, _request: web.Request) -> web.StreamResponse:
        """``DELETE /requests``: forget them; the totals of ``/stats`` go on."""
        self._log.clear()
        return web.Response(status=204)


async def _misbehave(
    request: web.Request, order: wire.Order, behaviour: Behaviour, status: int | None
) -> web.StreamResponse:
    if behaviour.drop_connection:
        return drop(request)
    if status is not None:
        headers = {**_JSON, "Retry-After": str(_RETRY_AFTER_S)} if status == _TOO_MANY_REQUESTS else _JSON
        return await send(request, [wire.failure_body(status)], behaviour, status=status, headers=headers)
    if behaviour.malformed:
        return await send(request, [wire.MALFORMED_BODY], behaviour)
    return await send_endless(request, wire.endless_answer(order, int(time.time())), behaviour)


# --- The server -----------------------------------------------------------------------------------------------------


async def serve(
    behaviour: Behaviour,
    host: str = DEFAULT_HOST,
    port: int = DEFAULT_PORT,
    *,
    exit_with_stdin: bool = False,
) -> None:
    """Listen until SIGTERM or SIGINT (or the end of stdin), after one line on stdout that names the address.

    Port 0 is any free one. Requests under way get half a second to end. Raises `click.ClickException` when it cannot
    listen.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    runner = web.AppRunner(
        build_app(behaviour),
        access_log=None,
        handler_cancellation=True,
        keepalive_timeout=_KEEPALIVE_S,
        shutdown_timeout=_SHUTDOWN_S,
    )
    await runner.setup()
    try:
        bound_port = await _listen(runner, host, port)
        for number in (signal.SIGTERM, signal.SIGINT):
            # Windows has no such handlers; there, Ctrl-C ends the run with an exception.
            with contextlib.suppress(NotImplementedError):
                loop.add_signal_handler(number, stop.set)
        if exit_with_stdin:
            _stop_with_stdin(stop, loop)
        shown_host = f"[{host}]" if ":" in host else host
        click.echo(f"sample provider on http://{shown_host}:{bound_port}")
        await stop.wait()
    finally:
        await runner.cleanup()


async def _listen(runner: web.AppRunner, host: str, port: int) -> int:
    """Open the socket; the port that it got."""
    try:
        await web.TCPSite(runner, host, port, backlog=_BACKLOG).start()
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            message = f"port {port} of {host} is in use; choose another one, or any free one with --port 0"
        else:
            message = f"cannot listen on {host} port {port}: {error}"
        raise click.ClickException(message) from error
    return int(runner.addresses[0][1])


def _stop_with_stdin(stop: asyncio.Event, loop: asyncio.AbstractEventLoop) -> None:
    """Stop when stdin ends. A thread reads it: event loops cannot watch every kind of file."""

    def read() -> None:
        # A closed stdin (EBADF) has ended too.
        with contextlib.suppress(OSError):
            while os.read(0, _STDIN_READ_BYTES):
                pass
        # The loop may be closed by now, by a signal.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(stop.set)

    threading.Thread(target=read, name="stdin", daemon=True).start()
