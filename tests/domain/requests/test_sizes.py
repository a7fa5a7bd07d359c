from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.domain.billing.pricing import Tier, price, tier_of
from proxy.domain.catalog import DEFAULT_FOUR_K_LONG_EDGE
from proxy.domain.requests.image import ImageRequest, parse_image_request
from proxy.domain.requests.sizes import (
    FACTORS,
    OPENAI_SIZES,
    PIXELS_1K,
    agree_on_size,
    asked_size,
    to_image_config,
    to_size,
)
from proxy.upstream.dialects import DIALECTS
from tests.domain.samples import make_model, written


@pytest.mark.parametrize("image_size", FACTORS)
@pytest.mark.parametrize("ratio", PIXELS_1K)
def test_the_table_holds_both_ways(ratio: str, image_size: str) -> None:
    factor = FACTORS[image_size]
    width, height = (side * factor for side in PIXELS_1K[ratio])
    # The long edges of the narrow ones are charged as 4K's are.
    asked_for = "4K" if max(width, height) >= 3_840 else image_size
    assert to_image_config(f"{width}x{height}", 3_840) == {"aspect_ratio": ratio, "image_size": asked_for}
    if image_size != "1K" and asked_for == image_size:
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
        half = width // 2, height // 2
        assert asked.is_larger_than(*half) or (image_size == "4K" and max(half) >= 3_840)


def test_a_size_that_says_nothing_is_always_met() -> None:
    assert (asked_size(None, None), asked_size("auto", None), asked_size("", "large")) == (None, None, None)


# --- Both at once -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "config", "agreed_size", "agreed_config"),
    [
        ("3840x2160", {"image_size": "1K"}, "3840x2160", {"image_size": "4K"}),
        ("4K", {"image_size": "2K", "aspect_ratio": "16:9"}, "4K", {"image_size": "4K", "aspect_ratio": "16:9"}),
        ("4K", {"image_size": "auto"}, "4K", {"image_size": "4K"}),
        ("1536x1024", {"image_size": "4K"}, None, {"image_size": "4K", "aspect_ratio": "3:2"}),
        ("1536x1024", {"image_size": "4K", "aspect_ratio": "1:1"}, None, {"image_size": "4K", "aspect_ratio": "1:1"}),
        ("1K", {"image_size": "4K"}, None, {"image_size": "4K"}),
        ("auto", {"image_size": "4K"}, None, {"image_size": "4K"}),
        ("1024x1024", {"image_size": "1K"}, "1024x1024", {"image_size": "1K"}),
        ("hd", {"image_size": "4K"}, "hd", {"image_size": "4K"}),
        ("3840x2160", {"aspect_ratio": "16:9"}, "3840x2160", {"aspect_ratio": "16:9"}),
    ],
)
def test_two_that_disagree_agree_on_the_larger(
    size: str, config: dict[str, str], agreed_size: str | None, agreed_config: dict[str, str]
) -> None:
    model = make_model(four_k_long_edge=3_840)
    asked = parse_image_request(orjson.dumps({"prompt": "a cube", "size": size, "image_config": config}))
    agreed = agree_on_size(asked, model)
    assert (agreed.size, agreed.fields.get("size"), agreed.fields["image_config"]) == (
        agreed_size,
        agreed_size,
        agreed_config,
    )
    assert agreed.image_size == agreed_config.get("image_size")
    assert price(agreed, model) == price(asked, model)


@pytest.mark.parametrize("dialect", ["openai", "openrouter", "gemini"])
@pytest.mark.parametrize("listed", [{"size"}, {"image_config"}, {"size", "image_config"}])
@pytest.mark.parametrize(("size", "image_size"), [("3840x2160", "1k"), ("1024x1024", " 4k "), ("auto", "4K")])
def test_what_is_charged_as_4k_is_asked_for_as_4k(dialect: str, listed: set[str], size: str, image_size: str) -> None:
    model = make_model(parameters=frozenset(listed))
    body = {"prompt": "a cube", "size": size, "image_config": {"image_size": image_size}}
    agreed = agree_on_size(parse_image_request(orjson.dumps(body)), model)
    assert isinstance(agreed, ImageRequest)
    assert price(agreed, model).tier is Tier.FOUR_K
    sent = written(DIALECTS[dialect].write_generation(agreed, model))
    told = sent.get("generationConfig", sent)
    config = told.get("imageConfig", told.get("image_config", {}))
    sizes = [config.get("imageSize", config.get("image_size")), sent.get("size"), sent.get("resolution")]
    assert any(sizes)
    assert all(one in ("4K", "3840x2160", "4096x4096") for one in sizes if one is not None)
