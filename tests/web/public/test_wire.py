from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from proxy.domain.errors import InvalidRequest
from proxy.domain.requests.chat import KNOWN_FIELDS, parse_chat_request
from proxy.domain.requests.image import KNOWN_PARAMETERS, WORD_LENGTH_LIMIT, parse_image_request
from proxy.web.public.wire import ChatRequestFields, GenerationRequest


def test_every_field_is_described() -> None:
    assert set(GenerationRequest.model_fields) == KNOWN_PARAMETERS | {"model", "prompt"}


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 102),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=3),
    st.sampled_from(["", " ", "\x1c", "\x85", "x" * WORD_LENGTH_LIMIT, "x" * (WORD_LENGTH_LIMIT + 1)]),
    st.just([]),
    st.sampled_from([" 4k ", "3840x2160", "+3840x2160", "3840x2160px", "04K", "a3840x1", "0.5K", "\u00a04K", "a" * 17]),
    st.dictionaries(
        st.sampled_from(["aspect_ratio", "image_size", "other"]),
        st.sampled_from(["4K", None, 1, "16:9", "auto", "3_840x1", "1920 x 1080", ""]),
    ),
)


def is_accepted(body: dict[str, Any]) -> bool:
    try:
        parse_image_request(orjson.dumps(body))
    except InvalidRequest:
        return False
    return True


def is_described(body: dict[str, Any]) -> bool:
    try:
        GenerationRequest.model_validate(body, strict=True)
    except ValidationError:
        return False
    return True


@given(st.sampled_from([*GenerationRequest.model_fields, "seed_phrase"]), VALUES)
def test_a_field_is_accepted_where_it_is_described_and_nowhere_else(name: str, value: object) -> None:
    body = {"prompt": "a cube", name: value}
    assert is_accepted(body) == is_described(body)


@pytest.mark.parametrize("body", [{}, {"prompt": None}, {"model": "acme/image-1"}])
def test_a_prompt_is_needed(body: dict[str, Any]) -> None:
    assert not is_accepted(body)
    assert not is_described(body)


def test_every_field_of_a_chat_is_described() -> None:
    assert set(ChatRequestFields.model_fields) == KNOWN_FIELDS


@given(st.sampled_from([*ChatRequestFields.model_fields, "seed_phrase"]), VALUES | st.just([{}]) | st.just([1]))
def test_a_field_of_a_chat_is_accepted_where_it_is_described(name: str, value: object) -> None:
    body = {"messages": [{"role": "user"}], name: value}
    try:
        ChatRequestFields.model_validate(body, strict=True)
    except ValidationError:
        is_good = False
    else:
        is_good = True
    try:
        parse_chat_request(orjson.dumps(body))
    except InvalidRequest:
        assert not is_good
    else:
        assert is_good
