from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.domain.billing.pricing import Tier, tier_of
from proxy.domain.catalog import DEFAULT_FOUR_K_LONG_EDGE
from proxy.domain.requests.image import ImageRequest
from proxy.domain.requests.sizes import FACTORS, OPENAI_SIZES, PIXELS_1K, asked_size, to_image_config, to_size


@pytest.mark.parametrize("image_size", FACTORS)
@pytest.mark.parametrize("ratio", PIXELS_1K)
def test_the_table_holds_both_ways(ratio: str, image_size: str) -> None:
    factor = FACTORS[image_size]
    width, height = (side * factor for side in PIXELS_1K[ratio])
    assert to_image_config(f"{width}x{height}", 3_840) == {"aspect_ratio": ratio, "image_size": image_size}
    if image_size != "1K":
        assert to_size(ratio, image_size, 3_840) == f"{width}x{height}"


@pytest.mark.parametrize(
    ("size", "config"),
    [
        ("1024x1024", {"aspect_ratio": "1:1", "image_size": "1K"}),
        ("1536x1024", {"aspect_ratio": "3:2", "image_size": "1K"}),
        ("1024x1792", {"aspect_ratio": "9:16", "image_size": "1K"}),
        ("3840x2160", {"aspect_ratio": "16:9", "image_size": "4K"}),
        ("3839x3839", {"aspect_ratio": "1:1", "image_size": "2K"}),
        ("4K", {"image_size": "4K"}),
        ("auto", {}), ("", {}), ("0x5", {}), ("hd", {}), ("9999999x1", {}),
    ],
)  # fmt: skip
def test_sizes_in_the_words_of_image_config(size: str, config: dict[str, str]) -> None:
    assert to_image_config(size, 3_840) == config


@pytest.mark.parametrize(
    ("ratio", "image_size", "size"),
    [
        ("1:1", None, "1024x1024"), (None, "1K", "1024x1024"), ("16:9", "1K", "1536x1024"), ("3:4", None, "1024x1536"),
        ("16:9", "4K", "5504x3072"), ("2:1", "2K", "2752x1536"), ("wide", "1K", None), ("0:1", None, None),
        (None, "8K", None), (None, None, "1024x1024"),
    ],
)  # fmt: skip
def test_image_config_in_the_words_of_sizes(ratio: str | None, image_size: str | None, size: str | None) -> None:
    assert to_size(ratio, image_size, 3_840) == size


LONG_EDGES = st.sampled_from([0, 1_000, 2_000, DEFAULT_FOUR_K_LONG_EDGE, 5_000])


@given(width=st.integers(1, 9_999), height=st.integers(1, 9_999), long_edge=LONG_EDGES)
def test_4k_is_asked_for_exactly_where_it_is_charged(width: int, height: int, long_edge: int) -> None:
    size = f"{width}x{height}"
    tier = tier_of(ImageRequest(model=None, prompt="", size=size), long_edge)
    assert (to_image_config(size, long_edge)["image_size"] == "4K") == (tier is Tier.FOUR_K)


@given(
    ratio=st.none() | st.sampled_from([*PIXELS_1K, "7:5", "2:1"]),
    image_size=st.none() | st.sampled_from([*FACTORS]),
    long_edge=st.integers(1, 9_999),
)
def test_a_translated_size_never_costs_more_than_what_was_asked(
    ratio: str | None, image_size: str | None, long_edge: int
) -> None:
    asked = ImageRequest(model=None, prompt="", image_size=image_size)
    sent = ImageRequest(model=None, prompt="", size=to_size(ratio, image_size, long_edge))
    if image_size != "4K":
        assert tier_of(asked, long_edge) is tier_of(sent, long_edge) is Tier.STANDARD
    else:
        assert tier_of(asked, long_edge) is Tier.FOUR_K
        assert sent.size is not None


def test_openais_sizes_are_no_others() -> None:
    assert {to_size(ratio, None, 3_840) for ratio in PIXELS_1K} == {
        f"{width}x{height}" for width, height in OPENAI_SIZES
    }


@pytest.mark.parametrize("image_size", FACTORS)
@pytest.mark.parametrize("ratio", PIXELS_1K)
def test_what_the_table_says_is_not_smaller_than_asked(ratio: str, image_size: str) -> None:
    width, height = (side * FACTORS[image_size] for side in PIXELS_1K[ratio])
    for asked in (asked_size(f"{width}x{height}", None), asked_size(image_size, None), asked_size(None, image_size)):
        assert asked is not None
        assert not asked.is_larger_than(width, height)
        assert asked.is_larger_than(width // 2, height // 2)


def test_a_size_that_says_nothing_is_always_met() -> None:
    assert (asked_size(None, None), asked_size("auto", None), asked_size("", "large")) == (None, None, None)
