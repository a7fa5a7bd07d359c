from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from aiohttp import web
from pydantic import BaseModel

from proxy.domain.errors import ModelNotAllowed, ModelNotFound, ProviderRefusal, UpstreamRateLimit
from proxy.web.server.openapi import describe, plain_path
from proxy.web.server.routes import Access, Route


class Thing(BaseModel):
    """A thing."""

    name: str


class Things(BaseModel):
    """Which things."""

    colour: str | None = None


async def handler(_request: web.Request) -> web.Response:
    """Do something.

    And then something else.
    """
    return web.Response()


PUBLIC = [
    Route("GET", "/v1/things/{model:.+}", handler, Access.KEY, {200: Thing}, errors=(ModelNotFound, UpstreamRateLimit))
]
ADMIN = [
    Route("GET", "/admin/v1/things", handler, Access.VIEWER, {200: Thing}, query=Things),
    Route("POST", "/admin/v1/things", handler, Access.ADMIN, {201: Thing}, Thing, errors=(ModelNotAllowed,)),
    Route("GET", "/metrics", handler, Access.FREE, {200: None}, media_type="text/plain"),
]


@pytest.fixture
def written() -> dict[str, Any]:
    return describe(PUBLIC, ADMIN, version="1.2.3", public_url="http://0.0.0.0:8080")


def references(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        for name, inner in value.items():
            if name == "$ref":
                yield inner
            yield from references(inner)
    if isinstance(value, list):
        for inner in value:
            yield from references(inner)


def test_what_the_router_wants_to_know_of_a_path_is_left_out() -> None:
    assert plain_path("/v1/models/{model:.+}") == "/v1/models/{model}"
    assert plain_path("/admin/v1/keys/{id}/rotate") == "/admin/v1/keys/{id}/rotate"


def test_a_handler_is_described_by_its_docstring(written: dict[str, Any]) -> None:
    operation = written["paths"]["/admin/v1/things"]["post"]
    assert (operation["summary"], operation["description"]) == ("Do something.", "And then something else.")


def test_a_handler_of_several_routes_is_described_by_the_summary_of_each() -> None:
    routes = [Route("GET", f"/{name}", handler, Access.FREE, {200: Thing}, summary=f"One {name}.") for name in "ab"]
    paths = describe(routes, [], version="1", public_url="http://localhost")["paths"]
    assert [paths[path]["get"]["summary"] for path in ("/a", "/b")] == ["One a.", "One b."]
    assert "description" not in paths["/a"]["get"]


def test_each_access_has_its_security_and_its_errors(written: dict[str, Any]) -> None:
    paths = written["paths"]
    assert paths["/v1/things/{model}"]["get"]["security"] == [{"apiKey": []}, {"api-key": []}, {"x-api-key": []}]
    assert paths["/admin/v1/things"]["get"]["security"] == [{"adminToken": []}]
    assert "security" not in paths["/metrics"]["get"]
    every = {"400", "417", "431", "500"}
    assert set(paths["/v1/things/{model}"]["get"]["responses"]) == {*every, "200", "401", "404", "429", "503"}
    assert set(paths["/admin/v1/things"]["get"]["responses"]) == {*every, "200", "401", "403", "503"}
    assert set(paths["/admin/v1/things"]["post"]["responses"]) == {
        *(*every, "201", "401", "403", "408", "413", "415", "503"),
    }
    assert set(paths["/metrics"]["get"]["responses"]) == {*every, "200"}
    assert paths["/admin/v1/things"]["post"]["responses"]["403"]["description"] == "role_not_allowed, model_not_allowed"


def test_a_provider_may_refuse_with_any_status() -> None:
    route = Route("POST", "/v1/things", handler, Access.KEY, {200: Thing}, Thing, errors=(ProviderRefusal,))
    written = describe([route], [], version="1", public_url="http://localhost")
    assert "4XX" in written["paths"]["/v1/things"]["post"]["responses"]


def test_a_query_has_no_null(written: dict[str, Any]) -> None:
    (parameter,) = written["paths"]["/admin/v1/things"]["get"]["parameters"]
    assert (parameter["name"], parameter["schema"]["type"], parameter["required"]) == ("colour", "string", False)


def test_every_reference_leads_somewhere(written: dict[str, Any]) -> None:
    found = set(references(written))
    assert "#/components/schemas/ErrorAnswer" in found
    for reference in found:
        place: Any = written
        for part in reference.removeprefix("#/").split("/"):
            place = place[part]


def test_addresses_can_be_gone_to(written: dict[str, Any]) -> None:
    assert written["paths"]["/v1/things/{model}"]["servers"][0]["url"] == "http://localhost:8080"
