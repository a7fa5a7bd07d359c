from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from aiohttp.typedefs import Handler

from proxy.web.server.routes import straight

TARGETS = (
    ("GET", "/things"),
    ("HEAD", "/things"),
    ("POST", "/things"),
    ("PUT", "/things"),
    ("GET", "/things?a=1"),
    ("GET", "/things/"),
    ("GET", "/things/7"),
    ("GET", "/thing%73"),
    ("GET", "/twice"),
    ("GET", "/any"),
    ("DELETE", "/any"),
    ("GET", "/nowhere"),
)


def make_app() -> web.Application:
    @web.middleware
    async def outer(request: web.Request, handler: Handler) -> web.StreamResponse:
        response = await handler(request)
        response.headers["Outer"] = response.headers["Inner"] + " outer"
        return response

    @web.middleware
    async def inner(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            response = await handler(request)
        except web.HTTPException as error:
            response = web.Response(status=error.status)
        resource = request.match_info.route.resource
        response.headers["Inner"] = "-" if resource is None else resource.canonical
        response.headers["Match"] = str(dict(request.match_info))
        return response

    def named(name: str) -> Handler:
        async def answer(request: web.Request) -> web.StreamResponse:
            assert request.app is app
            return web.Response(text=f"{name} {request.method}")

        return answer

    async def prepare(_request: web.Request, response: web.StreamResponse) -> None:
        response.headers["Prepared"] = "yes"

    app = web.Application(middlewares=[outer, inner])
    app.on_response_prepare.append(prepare)
    app.router.add_get("/things", named("all"))
    app.router.add_post("/things", named("new"))
    app.router.add_get("/things/{id}", named("one"))
    app.router.add_get("/twice", named("first"))
    app.router.add_post("/nowhere", named("posted"))
    app.router.add_get("/twice", named("second"))
    app.router.add_route("*", "/any", named("any"))
    return app


def server_of(running: TestServer) -> web.Server:
    assert running.runner is not None
    server = running.runner.server
    assert server is not None
    return server


@pytest.fixture
async def ways() -> AsyncIterator[tuple[TestClient[web.Request, web.Application], ...]]:
    """A server that goes aiohttp's own way to a handler, and one that goes straight."""
    ours = TestServer(make_app())
    async with TestClient(TestServer(make_app())) as own, TestClient(ours) as straightened:
        server = server_of(ours)
        server.request_handler = straight(ours.app, server.request_handler)
        yield own, straightened


@pytest.mark.parametrize(("method", "target"), TARGETS)
async def test_the_straight_way_leads_where_the_other_does(
    ways: tuple[TestClient[web.Request, web.Application], ...], method: str, target: str
) -> None:
    answers = []
    for client in ways:
        response = await client.request(method, target)
        headers = {name: value for name, value in response.headers.items() if name != "Date"}
        answers.append((response.status, headers, await response.read()))
    own, straightened = answers
    assert straightened == own
    assert own[1]["Outer"].endswith(" outer")


async def test_what_is_known_is_not_looked_for() -> None:
    async def never(_request: web.Request) -> web.StreamResponse:
        raise AssertionError

    ours = TestServer(make_app())
    async with TestClient(ours) as client:
        server_of(ours).request_handler = straight(ours.app, never)
        response = await client.post("/things")
        assert await response.text() == "new POST"
