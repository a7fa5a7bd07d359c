from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.images_response import Usage

from proxy.domain.answers.usage_writing import image_tokens
from tests.domain.answers.images.samples import NO_TOKENS


def written(reported: Any) -> Any:
    return orjson.loads(image_tokens(None if reported is None else orjson.dumps(reported)))


def counts(total: int, given_in: int, out: int, text: int, image: int = 0) -> dict[str, Any]:
    return {
        "total_tokens": total,
        "input_tokens": given_in,
        "output_tokens": out,
        "input_tokens_details": {"text_tokens": text, "image_tokens": image},
    }


@pytest.mark.parametrize(
    ("reported", "seen"),
    [
        (None, NO_TOKENS),
        ({}, NO_TOKENS),
        ({"total_tokens": 11, "input_tokens": 5, "output_tokens": 6}, counts(11, 5, 6, 5)),
        ({"input_tokens": 5, "output_tokens": 6}, counts(11, 5, 6, 5)),
        (
            {
                "total_tokens": 11,
                "input_tokens": 5,
                "output_tokens": 6,
                "input_tokens_details": {"text_tokens": 2, "image_tokens": 3, "cost": 4},
                "cost": 0.04,
            },
            counts(11, 5, 6, 2, 3),
        ),
        ({"prompt_tokens": 5, "completion_tokens": 6, "total_tokens": 11, "cost": 1}, counts(11, 5, 6, 5)),
        (
            {"prompt_tokens": 5, "completion_tokens": 6, "prompt_tokens_details": {"image_tokens": 4}},
            counts(11, 5, 6, 1, 4),
        ),
        ({"promptTokenCount": 5, "candidatesTokenCount": 6, "totalTokenCount": 11}, counts(11, 5, 6, 5)),
        ({"input_tokens": 5, "input_tokens_details": {"image_tokens": 9}}, counts(5, 5, 0, 0, 9)),
        ({"input_tokens": "many", "prompt_tokens": 5, "output_tokens": -1}, counts(5, 5, 0, 5)),
        ({"input_tokens": True, "output_tokens": 1.5, "input_tokens_details": [1]}, NO_TOKENS),
    ],
)
def test_token_counts_have_openais_names(reported: Any, seen: Any) -> None:
    assert written(reported) == seen


values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 2**53) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["image_tokens", "text_tokens"]), inner)
    ),
    max_leaves=4,
)
NAMES = [
    "total_tokens", "input_tokens", "output_tokens", "prompt_tokens", "completion_tokens", "promptTokenCount",
    "candidatesTokenCount", "totalTokenCount", "input_tokens_details", "prompt_tokens_details", "cost",
]  # fmt: skip


@given(st.dictionaries(st.sampled_from(NAMES), values))
def test_whatever_is_reported_becomes_all_that_openais_packages_require_and_nothing_else(reported: Any) -> None:
    usage = written(reported)
    assert usage.keys() == NO_TOKENS.keys()
    assert usage["input_tokens_details"].keys() == {"text_tokens", "image_tokens"}
    Usage.model_validate(usage, strict=True)
    assert min(usage["total_tokens"], usage["input_tokens"], usage["output_tokens"]) >= 0
    assert min(usage["input_tokens_details"].values()) >= 0
