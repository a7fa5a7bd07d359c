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
from dataclasses import replace
from itertools import chain
from typing import Any, Final

import click
import orjson
from aiohttp import web

from proxy.sample_provider import deviations
from proxy.sample_provider.behaviour import BEHAVIOUR_HEADER, Behaviour, split_prompt
from proxy.sample_provider.dialects import chat, gemini, wire
from proxy.sample_provider.dialects import registry as dialects
from proxy.sample_provider.dialects.registry import Dialect
from proxy.sample_provider.drawing import DrawingUnavailable
from proxy.sample_provider.memory import PictureKey, Pictures, ReceivedPart, ReceivedRequest, RecentlyUsed, RequestLog
from proxy.sample_provider.sending import (
    drop,
    send,
    send_endless,
    send_endless_events,
    send_events,
    without_content_type,
)
from proxy.sample_provider.uploads import fields_of, read_parts

DEFAULT_HOST: Final = "127.0.0.1"
DEFAULT_PORT: Final = 9090

_MAX_REQUEST_BYTES: Final = 64 * 1024 * 1024
_MAX_PICTURE_IDS: Final = 10_000
_MAX_PICTURE_IDS_BYTES: Final = 64 * 1024 * 1024
_RETRY_AFTER_S: Final = 7
_REFUSED: Final = 400
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
            web.post("/v1/images", _with_openai_errors(provider.images)),
            web.post("/v1/images/edits", _with_openai_errors(provider.edit)),
            web.post("/v1/images/variations", _with_openai_errors(provider.vary)),
            web.post("/v1/chat/completions", _with_errors(provider.chat, dialects.CHAT)),
            web.post(r"/v1beta/models/{model:[^:]+}:{method}", _with_errors(provider.gemini, dialects.GEMINI)),
            web.get("/v1/models", _with_openai_errors(provider.list_models)),
            web.get("/pictures/{id}.{format}", _with_openai_errors(provider.fetch_picture)),
            web.get("/healthz", provider.health),
            web.get("/stats", provider.stats),
            web.get("/requests", provider.list_requests),
            web.delete("/requests", provider.clear_requests),
            web.route("*", "/{path:.*}", _with_openai_errors(_not_found)),
        ]
    )
    app.cleanup_ctx.append(provider.lifetime)
    app.on_response_prepare.append(without_content_type)
    return app


def _with_openai_errors(handler: _Handler) -> _Handler:
    return _with_errors(handler, None)


def _with_errors(handler: _Handler, dialect: Dialect | None) -> _Handler:
    """Turn what a handler raises into the dialect's error form; OpenAI's, without one."""

    async def handle(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except wire.Refusal as error:
            refusal = error
        except web.HTTPRequestEntityTooLarge:
            refusal = wire.Refusal(413, "payload_too_large", f"A body has at most {_MAX_REQUEST_BYTES} bytes.")
        except DrawingUnavailable as error:
            refusal = wire.Refusal(500, "drawing_unavailable", str(error))
        if dialect is None:
            return web.Response(status=refusal.status, body=refusal.body(), headers=_JSON)
        body = dialect.error(refusal.status, refusal.code, refusal.message)
        return web.Response(status=refusal.status, body=body, headers=_JSON)

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
        body = await self._received(request)
        self._authorise(request)
        order, behaviour = wire.read_order(body, _overrides(request), self._behaviour)
        return await self._serve(request, order, behaviour, dialects.GENERATIONS)

    async def images(self, request: web.Request) -> web.StreamResponse:
        """``POST /v1/images``, as OpenRouter has it: sizes have names of their own, and images are always base64."""
        body = await self._received(request)
        self._authorise(request)
        fields = wire.read_object(body)
        if "size" in fields and not fields.keys().isdisjoint(("resolution", "aspect_ratio")):
            raise wire.Refusal(400, "invalid_value", "size may not stand beside resolution and aspect_ratio.")
        config = {"image_size": fields.get("resolution"), "aspect_ratio": fields.get("aspect_ratio")}
        asked = {**fields, "image_config": config, "response_format": "b64_json"}
        order, behaviour = wire.order_of(asked, _overrides(request), self._behaviour)
        return await self._serve(request, order, behaviour, dialects.GENERATIONS)

    async def edit(self, request: web.Request) -> web.StreamResponse:
        """``POST /v1/images/edits``: multipart, or JSON."""
        if request.content_type == "multipart/form-data":
            fields = await self._uploaded(request)
        else:
            body = await self._received(request)
            self._authorise(request)
            fields = wire.read_object(body)
            if not isinstance(fields.get("images"), list) or not fields["images"]:
                message = "images is required, and is a list of images."
                raise wire.Refusal(400, "missing_required_parameter", message, param="images")
        order, behaviour = wire.order_of(fields, _overrides(request), self._behaviour)
        return await self._serve(request, order, behaviour, dialects.EDITS)

    async def vary(self, request: web.Request) -> web.StreamResponse:
        """``POST /v1/images/variations``. It has no prompt; ``user`` may hold the prefix that a prompt has."""
        fields = await self._uploaded(request)
        prefix, _ = split_prompt(fields.get("user", ""))
        fields["prompt"] = f"[sample {prefix}] a variation"
        order, behaviour = wire.order_of(fields, _overrides(request), self._behaviour)
        return await self._serve(request, order, behaviour, dialects.GENERATIONS)

    async def chat(self, request: web.Request) -> web.StreamResponse:
        """``POST /v1/chat/completions``."""
        body = await self._received(request)
        self._authorise(request)
        order, behaviour = chat.read_chat(wire.read_object(body), _overrides(request), self._behaviour)
        return await self._serve(request, order, behaviour, dialects.CHAT)

    async def gemini(self, request: web.Request) -> web.StreamResponse:
        """``POST /v1beta/models/{model}:generateContent`` and ``:streamGenerateContent``."""
        body = await self._received(request)
        key = request.headers.get("x-goog-api-key", "")
        if not key:
            message = "Method doesn't allow unregistered callers. Please use API Key: x-goog-api-key."
            raise wire.Refusal(403, "permission_denied", message)
        if self._behaviour.api_key not in (None, key):
            raise wire.Refusal(400, "invalid_api_key", "API key not valid. Please pass a valid API key.")
        streams = request.match_info["method"] == "streamGenerateContent"
        if not streams and request.match_info["method"] != "generateContent":
            return await _not_found(request)
        if streams and request.query.get("alt") != "sse":
            raise wire.Refusal(400, "invalid_value", "The sample provider streams with alt=sse only.")
        order, behaviour = gemini.read_content(wire.read_object(body), _overrides(request), self._behaviour)
        return await self._serve(request, replace(order, stream=streams), behaviour, dialects.GEMINI)

    async def _received(self, request: web.Request) -> bytes:
        """The body, once it is on record."""
        body = await request.read()
        self._requests += 1
        self._log.add(ReceivedRequest(request.method, request.path, request.raw_headers, body))
        return body

    async def _uploaded(self, request: web.Request) -> dict[str, Any]:
        """The fields of an upload, once its parts are on record."""
        self._requests += 1
        parts: tuple[ReceivedPart, ...] = ()
        try:
            self._authorise(request)
            parts = await read_parts(request)
        finally:
            self._log.add(ReceivedRequest(request.method, request.path, request.raw_headers, b"", parts))
        return fields_of(parts)

    async def _serve(
        self, request: web.Request, order: wire.Order, behaviour: Behaviour, dialect: Dialect
    ) -> web.StreamResponse:
        order = _deviating_order(order, behaviour)
        status = self._failure(behaviour)
        fails = status is not None or behaviour.drop_connection
        if not fails and not (behaviour.malformed or behaviour.endless):
            # Counted now, as a provider does: a client that leaves during the delay has caused the work all the same.
            self._images += order.images
        if behaviour.delay_ms:
            await asyncio.sleep(behaviour.delay_ms / 1000)
        if fails:
            return await _fail(request, behaviour, dialect, status)
        if behaviour.endless:
            return await _send_endless(request, order, behaviour, dialect)
        if deviations.ERROR_IN_200 in behaviour.deviate:
            return await _send_error_in_200(request, order, behaviour, dialect)
        if order.stream is not behaviour.other_form:
            image = b"" if behaviour.malformed else await self._image(order, behaviour)
            events = dialects.stream_of(dialect, order, behaviour, image, int(time.time()))
            return await send_events(request, events, behaviour)
        if behaviour.malformed:
            return await send(request, [wire.MALFORMED_BODY], behaviour)
        answer = await self._answer(request, order, behaviour, dialect)
        if behaviour.deviate:
            answer = deviations.deviating_answer(answer, behaviour.deviate)
        return await send(request, answer, behaviour)

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

    async def _answer(
        self, request: web.Request, order: wire.Order, behaviour: Behaviour, dialect: Dialect
    ) -> list[bytes]:
        created_s = int(time.time())
        if not order.as_base64:
            return wire.url_answer(order, self._picture_url(request, _picture_key(order, behaviour)), created_s)
        return dialect.answer(order, behaviour, await self._image(order, behaviour), created_s)

    async def _image(self, order: wire.Order, behaviour: Behaviour) -> bytes:
        """The base64 text of every image of an order."""
        if not order.images and not behaviour.thoughts:
            return b""
        if behaviour.image_bytes is not None:
            return wire.filler(behaviour.image_bytes)
        return (await self._pictures.get(*_picture_key(order, behaviour))).base64

    def _picture_url(self, request: web.Request, key: PictureKey) -> str:
        """Where the picture is, once somebody asks; it is drawn then."""
        prompt, width, height, picture_format = key
        name = f"{width}x{height} {picture_format} {prompt}".encode()
        picture_id = hashlib.blake2b(name, digest_size=16).hexdigest()
        if self._picture_keys.get(picture_id) is None:
            self._picture_keys.put(picture_id, key, len(name))
        return f"http://{request.host}/pictures/{picture_id}.{picture_format}"

    async def fetch_picture(self, request: web.Request) -> web.StreamResponse:
        """``GET /pictures/{id}.png``, or another format."""
        key = self._picture_keys.get(request.match_info["id"])
        if key is None or key[3] != request.match_info["format"]:
            raise wire.Refusal(404, "not_found", "There is no such picture, or it was forgotten.")
        picture = await self._pictures.get(*key)
        return web.Response(body=picture.file, content_type=f"image/{key[3]}")

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


def _overrides(request: web.Request) -> str:
    return request.headers.get(BEHAVIOUR_HEADER, "")


def _picture_key(order: wire.Order, behaviour: Behaviour) -> PictureKey:
    """The picture to draw: of the size asked for, or in the same shape as large as the behaviour allows."""
    width, height = order.width, order.height
    longest = max(width, height)
    if behaviour.longest_edge_px is not None and behaviour.longest_edge_px < longest:
        width = max(1, width * behaviour.longest_edge_px // longest)
        height = max(1, height * behaviour.longest_edge_px // longest)
    return order.prompt, width, height, order.picture_format


def _deviating_order(order: wire.Order, behaviour: Behaviour) -> wire.Order:
    """The order as far as deviations change what there is to draw, and in which form."""
    if {deviations.NO_IMAGE, deviations.ERROR_IN_200} & set(behaviour.deviate):
        order = replace(order, images=0)
    if {deviations.BARE_BASE64, deviations.DATA_ADDRESS} & set(behaviour.deviate):
        order = replace(order, as_base64=True)
    return order


async def _send_error_in_200(
    request: web.Request, order: wire.Order, behaviour: Behaviour, dialect: Dialect
) -> web.StreamResponse:
    error = dialect.failure(_REFUSED)
    if order.stream is behaviour.other_form:
        return await send(request, [error], behaviour)
    return await send_events(request, [[b"data: ", error, b"\n\n"]], behaviour)


async def _fail(request: web.Request, behaviour: Behaviour, dialect: Dialect, status: int | None) -> web.StreamResponse:
    if behaviour.drop_connection or status is None:
        return drop(request)
    headers = {**_JSON, "Retry-After": str(_RETRY_AFTER_S)} if status == _TOO_MANY_REQUESTS else _JSON
    return await send(request, [dialect.failure(status)], behaviour, status=status, headers=headers)


async def _send_endless(
    request: web.Request, order: wire.Order, behaviour: Behaviour, dialect: Dialect
) -> web.StreamResponse:
    created_s, image = int(time.time()), wire.filler(4)
    order = replace(order, images=max(1, order.images))
    if order.stream:
        events = dialect.events(order, behaviour, image, created_s)
        segments = wire.endless_answer(chain.from_iterable(events), image)
        return await send_endless_events(request, segments, behaviour)
    segments = wire.endless_answer(dialect.answer(order, behaviour, image, created_s), image)
    return await send_endless(request, segments, behaviour)


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
