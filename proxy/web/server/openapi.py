"""``/openapi.json``: what both listeners serve, made from the table of routes and from what validates their bodies.

OpenAPI 3.1 (https://spec.openapis.org/oas/v3.1.1.html), whose schemas are JSON Schema 2020-12, which pydantic writes.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from http import HTTPStatus
from inspect import getdoc
from typing import Any, Literal

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from proxy.domain import people
from proxy.domain.answers.answer import EVENT_STREAM
from proxy.domain.api_key import KEY_ID_PATTERN, TEAM_ID_PATTERN
from proxy.domain.errors import ProviderRefusal, RateLimitExceeded
from proxy.domain.headers import KEY_HEADERS
from proxy.domain.limits import RATES
from proxy.domain.requests import idempotency
from proxy.domain.requests.kinds import Fields, reference
from proxy.metering.ledger.walk import ENTRY_ID_PATTERN
from proxy.web.public.wire import ErrorAnswer
from proxy.web.server.routes import Access, Route
from proxy.web.server.sockets.address import UNIX

JSON = "application/json"
MULTIPART = "multipart/form-data"
REFERENCE = "#/components/schemas/{model}"
WAITED_FOR = frozenset({409, 429, 503})
RETRIED_BY_SDKS = frozenset({408, 409, 429, 500, 502, 503, 504})

HEADERS: Mapping[str, dict[str, Any]] = {
    "x-request-id": {
        "required": True,
        "schema": {"type": "string"},
        "description": "The id by which the log knows the request",
    },
    "Retry-After": {
        "schema": {"type": "integer", "minimum": 0},
        "description": "Seconds to wait before trying again, where that can help",
    },
    "x-should-retry": {
        "schema": {"type": "string", "enum": ["false"]},
        "description": "Keeps OpenAI's SDKs from trying again what cannot succeed",
    },
    "Idempotency-Replayed": {
        "schema": {"type": "string", "enum": ["true"]},
        "description": "The answer of the request that had this Idempotency-Key first",
    },
    **{
        f"x-ratelimit-{what}-{kind}": {
            "schema": {"type": "string" if what == "reset" else "integer"},
            "description": f"How the rate limit of {kind} stands, where there is one, as OpenAI's API has it",
        }
        for kind in RATES
        for what in ("limit", "remaining", "reset")
    },
}
EVENTS = {"description": "Server-sent events, each with JSON as its data"}
PACE_HEADERS = tuple(name for name in HEADERS if name.startswith("x-ratelimit-"))
TAGS_PATTERN = f"^{people.TAG_PATTERN}(?:[ \\t]*,[ \\t]*{people.TAG_PATTERN}){{0,{people.TAGS_LIMIT - 1}}}$"
HEADER_PARAMETERS = {
    idempotency.HEADER: {
        "schema": {"type": "string", "minLength": 1, "maxLength": idempotency.LENGTH_LIMIT, "pattern": "^[!-~]+$"},
        "description": "The same key and body again have the first one's answer, for a day, and cost nothing",
    },
    people.TAGS_HEADER: {
        "schema": {"type": "string", "pattern": TAGS_PATTERN},
        "description": f"Up to {people.TAGS_LIMIT} tags for the ledger and statements, each name once",
    },
}

PATH_PARAMETERS = {
    "id": ("The id of a key or of a team, as the path says", rf"{KEY_ID_PATTERN}|{TEAM_ID_PATTERN}"),
    "entry": ("A ledger entry's id", ENTRY_ID_PATTERN),
    "team": ("A team's id", TEAM_ID_PATTERN),
    "month": ("A UTC month, like 2026-11", r"[0-9]{4}-(?:0[1-9]|1[0-2])"),
    "model": ("A model's id; its slashes may be escaped", r"\S+"),
}
"""What each is, and how it looks."""

SECURITY = {
    Access.KEY: ("apiKey", *KEY_HEADERS),
    Access.VIEWER: ("adminToken",),
    Access.TEAM_ADMIN: ("adminToken",),
    Access.ADMIN: ("adminToken",),
}
"""What each access takes, any one of them."""

SECURITY_SCHEMES = {
    "apiKey": {"type": "http", "scheme": "bearer", "bearerFormat": "lm_…", "description": "A key of this gateway"},
    **{
        name: {"type": "apiKey", "in": "header", "name": name, "description": "The same key, without 'Bearer'"}
        for name in KEY_HEADERS
    },
    "adminToken": {
        "type": "http",
        "scheme": "bearer",
        "description": "An admin token; a 'viewer' reads, a 'team_admin' reads what is its teams', and manages keys",
    },
}

Mode = Literal["validation", "serialization"]
_variable = re.compile(r"\{(\w+)(?::[^}]*)?\}")


def describe(public: Sequence[Route], admin: Sequence[Route], *, version: str, public_url: str) -> dict[str, Any]:
    """The document, which the admin listener serves; the public one is at ``public_url``."""
    models, schemas = _schemas([*public, *admin])
    paths: dict[str, dict[str, Any]] = defaultdict(dict)
    public_server = {"url": _reachable(public_url), "description": f"The public listener{_through(public_url)}"}
    admin_server = {"url": "/", "description": "The admin listener"}
    for routes, server in ((public, public_server), (admin, admin_server)):
        for route in routes:
            path = paths[plain_path(route.path)]
            path["servers"] = [server]
            path[route.method.lower()] = _operation(route, models)
    return {
        "openapi": "3.1.1",
        "info": {
            "title": "Lightmeter",
            "version": version,
            "summary": "A reverse proxy for image generation that meters what it forwards",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [public_server, admin_server],
        "paths": dict(paths),
        "components": {
            "schemas": schemas,
            "securitySchemes": SECURITY_SCHEMES,
            "headers": dict(HEADERS),
        },
    }


def plain_path(path: str) -> str:
    """A route's path without what the router wants to know of its variable parts."""
    return _variable.sub(r"{\1}", path)


def _reachable(url: str) -> str:
    """Where a listener that listens on all addresses is found from the same machine."""
    if url.startswith(UNIX):
        return "http://localhost"
    return url.replace("//0.0.0.0:", "//localhost:").replace("//[::]:", "//localhost:")


def _through(url: str) -> str:
    return f", at the Unix socket {url.removeprefix(UNIX)}" if url.startswith(UNIX) else ""


# --- One operation ----------------------------------------------------------------------------------------------------


Models = Mapping[tuple[Any, Mode], Mapping[str, Any]]


def _operation(route: Route, models: Models) -> dict[str, Any]:
    summary, _, details = (route.summary or getdoc(route.handler) or "").partition("\n")
    words = re.findall(r"\w+", plain_path(route.path))
    operation: dict[str, Any] = {
        "operationId": "_".join([route.method.lower(), *words]),
        "summary": summary.strip(),
        "parameters": [*_path_parameters(route), *_query_parameters(route, models), *_header_parameters(route)],
        "responses": {**_answers(route, models), **_errors(route)},
    }
    if details.strip():
        operation["description"] = details.strip()
    if content := dict(_bodies(route, models)):
        operation["requestBody"] = {"required": not route.body_may_be_left_out, "content": content}
    if route.access is not Access.FREE:
        operation["security"] = [{scheme: []} for scheme in SECURITY[route.access]]
    return operation


def _bodies(route: Route, models: Models) -> Iterator[tuple[str, dict[str, Any]]]:
    for media_type, model in ((JSON, route.body), (MULTIPART, route.form)):
        if model is not None:
            yield media_type, {"schema": models[model, "validation"]}


def _path_parameters(route: Route) -> Iterator[dict[str, Any]]:
    for name in _variable.findall(route.path):
        description, pattern = PATH_PARAMETERS[name]
        schema = {"type": "string", "pattern": f"^(?:{pattern})$"}
        yield {"name": name, "in": "path", "required": True, "description": description, "schema": schema}


def _query_parameters(route: Route, models: Models) -> Iterator[dict[str, Any]]:
    if route.query is None:
        return
    described = route.query.model_json_schema(ref_template=REFERENCE)
    for name, given in described["properties"].items():
        # Null is how pydantic leaves a parameter out; a query has no null.
        schema = next((one for one in given.get("anyOf", ()) if one != {"type": "null"}), given)
        schema = {key: value for key, value in schema.items() if key != "title"}
        yield {"name": name, "in": "query", "required": name in described.get("required", ()), "schema": schema}


def _header_parameters(route: Route) -> Iterator[dict[str, Any]]:
    for name in route.headers:
        yield {"name": name, "in": "header", "required": False, **HEADER_PARAMETERS[name]}


def _answers(route: Route, models: Models) -> dict[str, Any]:
    answers: dict[str, Any] = {}
    for status, model in route.answers.items():
        schema = {} if model is None else models[model, "serialization"]
        answers[str(status)] = {
            "description": HTTPStatus(status).phrase,
            "headers": _headers("x-request-id", *_pace_headers(route), *_replay_headers(route)),
            "content": {
                route.media_type: {"schema": schema},
                **({EVENT_STREAM: {"schema": EVENTS}} if route.streams else {}),
            },
        }
    return answers


def _errors(route: Route) -> dict[str, Any]:
    codes: dict[str, list[str]] = defaultdict(list)
    for error in route.all_errors:
        if error is not ProviderRefusal:
            codes[str(error.status)].append(error.code)
    errors = {
        status: _error(route, int(status), codes[status])
        for status in sorted(codes)
        if int(status) not in route.answers
    }
    if ProviderRefusal in route.all_errors:
        errors["4XX"] = _error(route, None, ["the provider's own: it refused the content of the request"])
    return errors


def _error(route: Route, status: int | None, codes: Iterable[str]) -> dict[str, Any]:
    names = ["x-request-id", *_pace_headers(route)]
    if status in WAITED_FOR:
        names.append("Retry-After")
    if status in RETRIED_BY_SDKS:
        names.append("x-should-retry")
    schema = {"$ref": REFERENCE.format(model=ErrorAnswer.__name__)}
    return {
        "description": ", ".join(dict.fromkeys(codes)),
        "headers": _headers(*names),
        "content": {JSON: {"schema": schema}},
    }


def _headers(*names: str) -> dict[str, Any]:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _pace_headers(route: Route) -> tuple[str, ...]:
    return PACE_HEADERS if RateLimitExceeded in route.all_errors else ()


def _replay_headers(route: Route) -> tuple[str, ...]:
    return ("Idempotency-Replayed",) if idempotency.HEADER in route.headers else ()


def _schemas(routes: Iterable[Route]) -> tuple[Models, dict[str, Any]]:
    wanted: dict[tuple[type[BaseModel], Mode], None] = {(ErrorAnswer, "serialization"): None}
    requests: dict[Fields, None] = {}
    for route in routes:
        for body in (route.body, route.form):
            if isinstance(body, Fields):
                requests[body] = None
            elif body is not None:
                wanted[body, "validation"] = None
        for model in route.answers.values():
            if model is not None:
                wanted[model, "serialization"] = None
    found, definitions = models_json_schema(list(wanted), ref_template=REFERENCE)
    schemas = definitions["$defs"]
    for request in requests:
        schemas |= request.schemas()
    return {**found, **{(request, "validation"): reference(request) for request in requests}}, schemas
