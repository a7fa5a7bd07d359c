"""A bare aiohttp forwarder with no metering, as fast as it goes in so few lines: what Lightmeter is measured against.

``python -m tests.benchmarks.bare_forwarder http://127.0.0.1:9090`` listens on a free port and says on which.
"""

from __future__ import annotations

import gc
import socket
import sys
from collections.abc import Awaitable, Callable

import uvloop
from aiohttp import ClientSession, ClientTimeout, DummyCookieJar, TCPConnector, web
from yarl import URL

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
SESSION = web.AppKey("session", ClientSession)
PROVIDER = URL(sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:9090")
PATHS = ("/v1/images/generations", "/v1/images/edits", "/v1beta/models/image-1:generateContent")
MOST_BYTES = 64_000_000
HEADERS = {
    "Authorization": "Bearer sample",
    "x-goog-api-key": "sample",
    "Accept-Encoding": "identity",
}


def forward_to(url: URL) -> Handler:
    async def forward(request: web.Request) -> web.StreamResponse:
        content_type = request.headers["Content-Type"]
        body = await request.read()
        async with request.app[SESSION].post(url, data=body, headers={"Content-Type": content_type}) as answer:
            headers = {"Content-Type": answer.headers["Content-Type"]}
            response = web.StreamResponse(status=answer.status, headers=headers)
            response.content_length = answer.content_length
            await response.prepare(request)
            async for piece in answer.content.iter_any():
                await response.write(piece)
            await response.write_eof()
            return response

    return forward


async def start(app: web.Application) -> None:
    app[SESSION] = ClientSession(
        connector=TCPConnector(limit=0),
        cookie_jar=DummyCookieJar(),
        timeout=ClientTimeout(total=None),
        auto_decompress=False,
        read_bufsize=65_536,
        headers=HEADERS,
    )
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)


if __name__ == "__main__":
    app = web.Application(client_max_size=MOST_BYTES)
    for path in PATHS:
        app.router.add_post(path, forward_to(PROVIDER.with_path(path)))
    app.on_startup.append(start)
    listener = socket.create_server(("127.0.0.1", 0))
    sys.stdout.write(f"bare forwarder on http://127.0.0.1:{listener.getsockname()[1]}\n")
    sys.stdout.flush()
    web.run_app(app, sock=listener, backlog=1024, access_log=None, print=None, loop=uvloop.new_event_loop())
