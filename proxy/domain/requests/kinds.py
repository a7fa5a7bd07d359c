"""The kinds of fields that a request has. Each reads a value, and says in JSON Schema what it reads.

A request is one table of these: what validates a body and what ``/openapi.json`` says of it cannot differ.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from proxy.domain.errors import InvalidRequest, UnknownParameter
from proxy.domain.requests.size_words import ASPECT_RATIO_PATTERN, SIZE_PATTERN, read_aspect_ratio, read_size

WORD_LENGTH_LIMIT = 1_000
"""Characters in any string but the prompt: sizes, hints and user ids are short."""

NOT_BLANK = r"[^\s\x1c-\x1f\x85]"
"""In JSON Schema (ECMA 262): not a blank for Python."""

REFERENCE = "#/components/schemas/{name}"
"""Where an OpenAPI document has the schema of this name."""

Schema = Mapping[str, Any]
_SWITCHES = {"true": True, "false": False}
_digits = re.compile(r"-?[0-9]{1,100}")


def _as_it_is(_name: str, text: str) -> Any:
    return text


@dataclass(frozen=True, slots=True, eq=False)
class Kind:
    """What a field may hold, in each form in which it is met.

    ``read`` takes the field's name and its value from JSON. It returns the value as a provider gets it, None where it
    says nothing, and raises InvalidRequest, which names the field. ``schema`` says the same in JSON Schema (2020-12),
    and may refer to ``objects``. ``read_text`` returns the JSON value that a form's text stands for. ``members`` are
    those that an object may have, any where it is None.
    """

    read: Callable[[str, Any], Any]
    schema: Schema
    read_text: Callable[[str, str], Any] = _as_it_is
    objects: tuple[Fields, ...] = ()
    members: Fields | None = None

    @property
    def is_object(self) -> bool:
        """Whether it is an object, whose members a form may have as fields of their own."""
        return self.read_text is _read_json


@dataclass(frozen=True, slots=True, eq=False)
class Fields:
    """An object with fields of these kinds; a field that is null is left out.

    ``name`` and ``description`` are what an OpenAPI document says of it. ``required`` says of each field that may not
    be left out what it is. A form has no null.
    """

    name: str
    description: str
    kinds: Mapping[str, Kind]
    required: Mapping[str, str] = field(default_factory=dict)
    has_nulls: bool = True

    def read(self, given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """The fields of ``given``, read; and those that are not in the table, as they are. Raises InvalidRequest.

        What is unknown within a member has the path to it as its name.
        """
        kinds, fields = self.kinds, {}
        unknown: dict[str, Any] = {}
        for name, value in given.items():
            if value is None:
                continue
            kind = kinds.get(name)
            if kind is None:
                unknown[name] = value
            elif kind.members is not None:
                fields[name], inner = kind.members.read_member(name, value)
                unknown |= inner
            else:
                read = kind.read(name, value)
                if read is not None:
                    fields[name] = read
        return fields, unknown

    def check_required(self, given: Container[str]) -> None:
        """Refuse a request of the fields ``given`` where one of those that are required is not among them."""
        for name, meaning in self.required.items():
            if name not in given:
                raise InvalidRequest(f"Missing required parameter: '{name}', {meaning}.", param=name)

    def read_member(self, name: str, value: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """The same for an object within a request, which is called ``name``. Raises InvalidRequest."""
        if type(value) is not dict:
            wanted = " and ".join(f"'{member}'" for member in self.kinds)
            raise InvalidRequest(f"'{name}' should be an object with {wanted}, not {json_type(value)}.", param=name)
        fields, unknown = {}, {}
        for inner, member in value.items():
            path, kind = f"{name}.{inner}", self.kinds.get(inner)
            if member is None:
                continue
            if kind is None:
                unknown[path] = member
                continue
            read = kind.read(path, member)
            if read is not None:
                fields[inner] = read
        return fields, unknown

    def read_alone(self, name: str, value: Any) -> dict[str, Any]:
        """The same where no other field may be. Raises InvalidRequest, or UnknownParameter."""
        fields, unknown = self.read_member(name, value)
        for path in unknown:
            raise UnknownParameter(f"Unknown parameter: '{excerpt(path)}'.", param=excerpt(path))
        return fields

    def schemas(self) -> dict[str, Schema]:
        """Its schema and those that it refers to, by their names."""
        found: dict[str, Schema] = {}
        for kind in self.kinds.values():
            for inner in kind.objects:
                found |= inner.schemas()
        properties = {name: self._property(name, kind.schema) for name, kind in self.kinds.items()}
        found[self.name] = {
            "type": "object",
            "description": self.description,
            "properties": properties,
            **({"required": list(self.required)} if self.required else {}),
            "additionalProperties": NULL if self.has_nulls else False,
        }
        return found

    def _property(self, name: str, schema: Schema) -> Schema:
        if not self.has_nulls or name in self.required or schema in ({}, NULL):
            return schema
        return {"anyOf": [*schema.get("anyOf", [schema]), NULL], "default": None}


def excerpt(name: str) -> str:
    """A name that came from outside, short enough to be given back."""
    return name[:100]


def json_type(value: object) -> str:
    """What a value is, in JSON's words."""
    kinds = {
        str: "a string",
        int: "an integer",
        float: "a number",
        bool: "a boolean",
        list: "an array",
        dict: "an object",
    }
    return kinds.get(type(value), "null")


# --- Strings ----------------------------------------------------------------------------------------------------------


def _read_word(name: str, value: Any) -> Any:
    if type(value) is not str:
        raise InvalidRequest(f"'{name}' should be a string, not {json_type(value)}.", param=name)
    if len(value) > WORD_LENGTH_LIMIT:
        raise InvalidRequest(f"'{name}' should have at most {WORD_LENGTH_LIMIT:,} characters.", param=name)
    return value


def _read_text(name: str, value: Any) -> Any:
    if type(value) is not str:
        raise InvalidRequest(f"'{name}' should be a string, not {json_type(value)}.", param=name)
    if not value.strip():
        raise InvalidRequest(f"'{name}' should not be empty.", param=name)
    return value


def _read_identifier(name: str, value: Any) -> Any:
    return _read_text(name, _read_word(name, value))


def _read_size(name: str, value: Any) -> Any:
    return read_size(name, _read_word(name, value))


def _read_aspect_ratio(name: str, value: Any) -> Any:
    return read_aspect_ratio(name, _read_word(name, value))


_WORD = {"type": "string", "maxLength": WORD_LENGTH_LIMIT}
WORD = Kind(_read_word, _WORD)
TEXT = Kind(_read_text, {"type": "string", "pattern": NOT_BLANK})
"""A string of any length that is not blank."""

IDENTIFIER = Kind(_read_identifier, {**_WORD, "pattern": NOT_BLANK})
"""The id of a model or of a file."""

SIZE = Kind(_read_size, {**_WORD, "pattern": SIZE_PATTERN})
ASPECT_RATIO = Kind(_read_aspect_ratio, {**_WORD, "pattern": ASPECT_RATIO_PATTERN})


# --- Numbers and switches ---------------------------------------------------------------------------------------------


def integer(least: int, most: int | None = None) -> Kind:
    """An integer of at least ``least`` and at most ``most``."""
    wanted = f"an integer of at least {least}" if most is None else f"an integer from {least} to {most:,}"

    def read(name: str, value: Any) -> Any:
        # `type() is`, for True is an int to isinstance, and 1.0 and 2**64 come out of orjson as floats.
        if type(value) is not int:
            raise InvalidRequest(f"'{name}' should be {wanted}, not {json_type(value)}.", param=name)
        if value < least or (most is not None and value > most):
            raise InvalidRequest(f"'{name}' should be {wanted}, not {value}.", param=name)
        return value

    def read_text(name: str, text: str) -> Any:
        if not _digits.fullmatch(text):
            raise InvalidRequest(f"'{name}' should be an integer, not '{excerpt(text)}'.", param=name)
        return int(text)

    schema = {"type": "integer", "minimum": least, **({} if most is None else {"maximum": most})}
    return Kind(read, schema, read_text)


def _read_boolean(name: str, value: Any) -> Any:
    if type(value) is not bool:
        raise InvalidRequest(f"'{name}' should be true or false, not {json_type(value)}.", param=name)
    return value


def _read_switch(name: str, text: str) -> Any:
    if text not in _SWITCHES:
        raise InvalidRequest(f"'{name}' should be true or false, not '{excerpt(text)}'.", param=name)
    return _SWITCHES[text]


BOOLEAN = Kind(_read_boolean, {"type": "boolean"}, _read_switch)


# --- Objects and arrays -----------------------------------------------------------------------------------------------


def _read_object(name: str, value: Any) -> Any:
    if type(value) is not dict:
        raise InvalidRequest(f"'{name}' should be an object, not {json_type(value)}.", param=name)
    return value


def _read_json(name: str, text: str) -> Any:
    try:
        return _read_object(name, orjson.loads(text))
    except orjson.JSONDecodeError:
        raise InvalidRequest(f"'{name}' should be an object as JSON.", param=name) from None


OBJECT = Kind(_read_object, {"type": "object", "additionalProperties": True}, _read_json)
"""An object whose members are a provider's to check."""


def reference(fields: Fields) -> Schema:
    """What stands for the schema of ``fields`` where it is used."""
    return {"$ref": REFERENCE.format(name=fields.name)}


def object_of(fields: Fields) -> Kind:
    """An object with these fields and no others."""
    return Kind(fields.read_alone, reference(fields), _read_json, (fields,), fields)


def array_of(item: Kind, least: int, most: int | None, wanted: str) -> Kind:
    """An array of ``least`` to ``most`` such items, which is called what is ``wanted`` where it is something else."""

    def read(name: str, value: Any) -> Any:
        if type(value) is not list or len(value) < least or (most is not None and len(value) > most):
            raise InvalidRequest(f"'{name}' should be {wanted}.", param=name)
        return [item.read(f"{name}[{index}]", each) for index, each in enumerate(value)]

    bounds = {**({"minItems": least} if least else {}), **({} if most is None else {"maxItems": most})}
    return Kind(read, {"type": "array", "items": item.schema, **bounds}, objects=item.objects)


# --- Everything and nothing -------------------------------------------------------------------------------------------


def _read_anything(_name: str, value: Any) -> Any:
    return value


def _read_nothing(name: str, value: Any) -> Any:
    raise InvalidRequest(f"'{name}' should be left out, not {json_type(value)}.", param=name)


def _read_file(name: str, _value: Any) -> Any:
    raise InvalidRequest(f"'{name}' should be a file, sent with a file name.", param=name)


NULL = {"type": "null"}
ANYTHING = Kind(_read_anything, {})
"""A value that is a provider's to check."""

NOTHING = Kind(_read_nothing, NULL)
FILE = Kind(_read_file, {"type": "string", "format": "binary", "minLength": 1})
"""A file of a form."""
