from __future__ import annotations

import copy
from typing import Any

import pytest

from proxy.domain.wording import Wording

BODY = {"model": "m", "n": 2, "quality": "high", "image_config": {"image_size": "1K", "aspect_ratio": "1:1"}}


@pytest.mark.parametrize(
    ("wording", "worded"),
    [
        (Wording(), BODY),
        (Wording(names_model=False), {name: value for name, value in BODY.items() if name != "model"}),
        (
            Wording(((("image_config", "image_size"), ("resolution",)), (("n",), ("a", "b")))),
            {
                "model": "m",
                "quality": "high",
                "image_config": {"aspect_ratio": "1:1"},
                "resolution": "1K",
                "a": {"b": 2},
            },
        ),
        (
            Wording(((("image_config", "image_size"), ("x",)), (("image_config", "aspect_ratio"), ("y",)))),
            {"model": "m", "n": 2, "quality": "high", "x": "1K", "y": "1:1"},
        ),
        (
            Wording(((("n",), ("quality",)), (("quality",), ("n",)))),
            BODY | {"n": "high", "quality": 2},
        ),
        (Wording(((("gone",), ("x",)), (("n", "inner"), ("y",)))), BODY),
        (
            Wording(words={("quality",): {"high": "hd"}, ("n",): {"2": "3"}, ("gone",): {"a": "b"}}),
            BODY | {"quality": "hd"},
        ),
        (
            Wording(((("quality",), ("q",)),), {("q",): {"high": "hd"}, ("image_config", "image_size"): {"1K": "1k"}}),
            {"model": "m", "n": 2, "q": "hd", "image_config": {"image_size": "1k", "aspect_ratio": "1:1"}},
        ),
        (
            Wording(constants={"n": 1, "image_config": {"aspect_ratio": "4:3", "x": {"y": 1}}, "z": None}),
            BODY | {"n": 1, "image_config": {"image_size": "1K", "aspect_ratio": "4:3", "x": {"y": 1}}, "z": None},
        ),
    ],
)
def test_a_body_is_worded_and_the_one_that_was_given_stays_as_it_was(wording: Wording, worded: dict[str, Any]) -> None:
    given = copy.deepcopy(BODY)
    assert wording.of(given) == worded
    assert given == BODY


def test_names_that_are_taken_are_those_of_constants_and_of_what_is_renamed() -> None:
    wording = Wording(
        ((("image_config", "image_size"), ("resolution", "x")), (("n",), ("count",))), {}, {"watermark": 1}
    )
    assert wording.names_taken == {"resolution", "count", "watermark"}
    assert wording.image_config_members == {"image_size"}
