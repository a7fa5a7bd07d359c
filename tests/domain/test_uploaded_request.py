from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.domain.errors import InvalidRequest, UnknownParameter
from proxy.domain.uploaded_request import request_of_texts

TEXTS = [("model", "m"), ("prompt", "a cube"), ("n", "2"), ("size", "4K"), ("stream", "true"), ("quality", "7")]


@given(st.permutations(TEXTS))
def test_the_order_of_the_parts_does_not_matter(texts: list[tuple[str, str]]) -> None:
    asked = request_of_texts(texts)
    assert (asked.model, asked.prompt, asked.n, asked.size, asked.stream) == ("m", "a cube", 2, "4K", True)
    assert asked.fields == {"prompt": "a cube", "n": 2, "size": "4K", "stream": True, "quality": "7"}


def test_a_variation_has_no_prompt() -> None:
    assert request_of_texts([("n", "3")], variation=True).n == 3
    with pytest.raises(UnknownParameter) as caught:
        request_of_texts([("prompt", "a cube")], variation=True)
    assert caught.value.param == "prompt"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("n", "0"), ("n", "two"), ("n", "1.0"), ("n", ""), ("n", "٢"), ("n", "9" * 400), ("stream", "yes"),
        ("stream", "1"), ("model", " "), ("image_config", "{"), ("image_config", "null"), ("output_compression", "101"),
        ("prompt", "again"), ("input_fidelity", "h" * 1_001),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(name: str, text: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        request_of_texts([("prompt", "a cube"), (name, text)])
    assert caught.value.param == name


def test_an_edit_needs_a_prompt() -> None:
    with pytest.raises(InvalidRequest) as caught:
        request_of_texts([("n", "1")])
    assert caught.value.param == "prompt"


def test_image_config_is_json_in_a_form() -> None:
    asked = request_of_texts([("prompt", "a cube"), ("image_config", '{"image_size":"4K","aspect_ratio":null}')])
    assert asked.image_size == "4K"
    assert asked.fields["image_config"] == {"image_size": "4K"}
