"""A request's body as JSON: one object, no deeper than a request may be."""

from __future__ import annotations

from typing import Any

import orjson

from proxy.domain.errors import InvalidRequest
from proxy.domain.requests.kinds import excerpt

DEPTH_LIMIT = 64
"""Objects and arrays within each other, in all of a request."""


def read_object(body: bytes | dict[str, Any], wanted: str) -> dict[str, Any]:
    """The object in a JSON body, decoded already or not. Raises InvalidRequest, which says what is ``wanted``."""
    if isinstance(body, dict):
        return body
    if not body:
        raise InvalidRequest(f"The request has no body; it should be a JSON object with {wanted}.")
    return parse_json(body, wanted)


def parse_json(body: bytes, wanted: str = "") -> dict[str, Any]:
    """The object in ``body``, no deeper than a request may be. Raises InvalidRequest, which says what is ``wanted``."""
    try:
        given = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"The request body is not valid JSON: {error}.") from None
    if type(given) is not dict:
        raise InvalidRequest(f"The request body should be a JSON object{' with ' if wanted else ''}{wanted}.")
    # A body with fewer brackets cannot be deeper; most have a few.
    if body.count(b"[") + body.count(b"{") > DEPTH_LIMIT:
        check_depth(given)
    return given


def check_depth(given: dict[str, Any]) -> None:
    """Refuse what is nested deeper than ``DEPTH_LIMIT`` (InvalidRequest, which names the field)."""
    for name, value in given.items():
        level, depth = _nested([value]), 1
        while level:
            depth += 1
            if depth > DEPTH_LIMIT:
                raise InvalidRequest(f"'{excerpt(name)}' is nested more than {DEPTH_LIMIT} deep.", param=excerpt(name))
            level = [inner for outer in level for inner in _nested(outer)]


def _nested(outer: dict[str, Any] | list[Any]) -> list[dict[str, Any] | list[Any]]:
    values = outer.values() if isinstance(outer, dict) else outer
    return [value for value in values if isinstance(value, dict | list)]
