"""What a request's table says in JSON Schema is what it reads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jsonschema_rs
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.domain.errors import InvalidRequest, UnknownParameter
from proxy.domain.requests.chat import CHAT, ChatRequest, parse_chat_request
from proxy.domain.requests.edit import EDIT, EDIT_FORM, VARIATION_FORM, parse_edit_request
from proxy.domain.requests.image import GENERATION, ImageRequest, parse_image_request
from proxy.domain.requests.kinds import FILE, REFERENCE, WORD_LENGTH_LIMIT, Fields, integer, object_of
from proxy.domain.requests.unknown import accept_unknown
from tests.domain.samples import make_model

LINK = {"image_url": "https://a.example/cat.png"}
JSON_REQUESTS: dict[str, tuple[Fields, Callable[[bytes], ImageRequest | ChatRequest], dict[str, Any]]] = {
    "generation": (GENERATION, parse_image_request, {"prompt": "a cube"}),
    "edit": (EDIT, parse_edit_request, {"prompt": "a cube", "images": [LINK]}),
    "chat": (CHAT, parse_chat_request, {"messages": [{"role": "user"}]}),
}
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 102),
    st.floats(allow_nan=False, allow_infinity=False).filter(lambda value: value != int(value)),
    st.text(max_size=3),
    st.sampled_from(["", " ", "\x1c", "\x85", "x" * WORD_LENGTH_LIMIT, "x" * (WORD_LENGTH_LIMIT + 1)]),
    st.sampled_from([[], [{}], [1], ["image"]]),
    st.sampled_from([" 4k ", "3840x2160", "+3840x2160", "3840x2160px", "04K", "a3840x1", "0.5K", "\u00a04K", "a" * 17]),
    st.sampled_from([LINK, {"file_id": "f"}, {**LINK, "file_id": "f"}, {**LINK, "file_id": None}, [LINK] * 17]),
    st.dictionaries(
        st.sampled_from(["aspect_ratio", "image_size", "other"]),
        st.sampled_from(["4K", None, 1, "16:9", "auto", "3_840x1", "1920 x 1080", ""]),
    ),
)


def validator(fields: Fields) -> jsonschema_rs.Validator:
    document = {"$ref": REFERENCE.format(name=fields.name), "components": {"schemas": fields.schemas()}}
    return jsonschema_rs.Draft202012Validator(document)


VALIDATORS = {name: validator(fields) for name, (fields, _, _) in JSON_REQUESTS.items()}


@pytest.mark.parametrize("kind", JSON_REQUESTS)
@given(st.data())
def test_a_field_is_accepted_where_it_is_described_and_nowhere_else(kind: str, data: st.DataObject) -> None:
    fields, parse, least = JSON_REQUESTS[kind]
    name = data.draw(st.sampled_from([*fields.kinds, "seed_phrase"]))
    body = {**least, name: data.draw(VALUES)}
    try:
        accept_unknown(parse(orjson.dumps(body)), make_model())
    except InvalidRequest:
        assert not VALIDATORS[kind].is_valid(body)
    else:
        assert VALIDATORS[kind].is_valid(body)


@pytest.mark.parametrize("kind", JSON_REQUESTS)
def test_what_is_required_is_required_in_both(kind: str) -> None:
    fields, parse, least = JSON_REQUESTS[kind]
    for name in least:
        for body in ({**least, name: None}, {key: value for key, value in least.items() if key != name}):
            assert not VALIDATORS[kind].is_valid(body)
            with pytest.raises(InvalidRequest) as refused:
                parse(orjson.dumps(body))
            assert refused.value.param == name
    assert set(fields.required) == set(least)


@pytest.mark.parametrize("form", [EDIT_FORM, VARIATION_FORM])
def test_a_form_has_no_null(form: Fields) -> None:
    properties = form.schemas()[form.name]["properties"]
    assert b'"null"' not in orjson.dumps(properties)
    assert properties["image"] == FILE.schema


def test_an_object_within_a_request_is_read_by_its_own_table() -> None:
    kind = object_of(Fields("Inner", "An object.", {"a": integer(1)}))
    assert kind.read("outer", {"a": 1}) == {"a": 1}
    assert kind.read("outer", {"a": None, "b": None}) == {}
    assert kind.read_text("outer", '{"a":2}') == {"a": 2}
    for value, param in (([], "outer"), ({"a": 0}, "outer.a"), ({"b": 1}, "outer.b")):
        with pytest.raises(InvalidRequest) as refused:
            kind.read("outer", value)
        assert refused.value.param == param
    with pytest.raises(UnknownParameter):
        kind.read("outer", {"b" * 500: 1})
