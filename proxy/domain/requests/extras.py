"""Fields of a request that the operator has added to a model: what they may hold, and whether a request's do.

They are forwarded, and change no price.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import orjson

from proxy.domain.errors import InvalidRequest
from proxy.domain.requests.kinds import BOOLEAN, OBJECT, WORD, Kind, excerpt, json_type

INTEGER_LIMIT = 2**63
"""Integers beyond it come out of JSON as floats."""

_number = re.compile(r"-?[0-9]{1,30}(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,3})?")
_integer = re.compile(r"-?[0-9]{1,19}")

Allowed = str | int | float | bool


def _read_integer(name: str, value: Any) -> Any:
    if type(value) is not int or not -INTEGER_LIMIT <= value < INTEGER_LIMIT:
        raise InvalidRequest(f"'{name}' should be an integer of 64 bits, not {json_type(value)}.", param=name)
    return value


def _integer_of_text(name: str, text: str) -> Any:
    if not _integer.fullmatch(text):
        raise InvalidRequest(f"'{name}' should be an integer, not '{excerpt(text)}'.", param=name)
    return int(text)


def _read_number(name: str, value: Any) -> Any:
    if type(value) is not int and (type(value) is not float or not math.isfinite(value)):
        raise InvalidRequest(f"'{name}' should be a number, not {json_type(value)}.", param=name)
    return value


def _number_of_text(name: str, text: str) -> Any:
    if not _number.fullmatch(text):
        raise InvalidRequest(f"'{name}' should be a number, not '{excerpt(text)}'.", param=name)
    return int(text) if _integer.fullmatch(text) else float(text)


def _read_array(name: str, value: Any) -> Any:
    if type(value) is not list:
        raise InvalidRequest(f"'{name}' should be an array, not {json_type(value)}.", param=name)
    return value


def _array_of_text(name: str, text: str) -> Any:
    try:
        return _read_array(name, orjson.loads(text))
    except orjson.JSONDecodeError:
        raise InvalidRequest(f"'{name}' should be an array as JSON.", param=name) from None


KINDS: Mapping[str, Kind] = {
    "string": WORD,
    "integer": Kind(_read_integer, {"type": "integer"}, _integer_of_text),
    "number": Kind(_read_number, {"type": "number"}, _number_of_text),
    "boolean": BOOLEAN,
    "object": OBJECT,
    "array": Kind(_read_array, {"type": "array"}, _array_of_text),
}
"""What an extra parameter may be said to be."""


def kind_of(given: str | Sequence[Allowed]) -> Kind:
    """The kind that a word of ``KINDS`` means, or that has these values; the same one for the same meaning."""
    # A model that is read again is the same as before where its kinds are.
    return KINDS[given] if isinstance(given, str) else _one_of(tuple((type(value), value) for value in given))


@cache
def _one_of(allowed: tuple[tuple[type, Allowed], ...]) -> Kind:
    by_text = {_text(value): value for _, value in allowed}
    wanted = ", ".join(by_text)

    def read(name: str, value: Any) -> Any:
        # `type() is`: True is 1, and 1.0 is 1, where values are compared alone.
        if isinstance(value, str | int | float) and (type(value), value) in allowed:
            return value
        raise InvalidRequest(f"'{name}' should be one of {wanted}.", param=name)

    def read_text(name: str, text: str) -> Any:
        if text not in by_text:
            raise InvalidRequest(f"'{name}' should be one of {wanted}.", param=name)
        return by_text[text]

    return Kind(read, {"enum": list(by_text.values())}, read_text)


def _text(value: Allowed) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()
