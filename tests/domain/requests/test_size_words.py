from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.domain.billing.pricing import Tier, tier_of
from proxy.domain.errors import InvalidRequest
from proxy.domain.requests.chat import parse_chat_request
from proxy.domain.requests.edit import parse_edit_request, request_of_form
from proxy.domain.requests.image import ImageRequest, Task, parse_image_request
from proxy.domain.requests.size_words import check_sizes, read_aspect_ratio, read_size
from proxy.upstream.dialects import DIALECTS
from tests.domain.requests.test_image import NO_SIZES
from tests.domain.samples import make_model, written
from tests.support.sources import upload

DATA = "data:image/png;base64,AAAA"
TURN = {"role": "user", "content": "a cube"}
FILE = upload("image")

# --- How lenient parsers read a size ----------------------------------------------------------------------------------


def numbers_of(text: str) -> Iterator[float]:
    """What ``int()``, ``float()`` and ``parseInt()`` make of it."""
    with suppress(ValueError):
        yield int(text)
    with suppress(ValueError):
        yield float(text)
    begin = re.match(r"\s*[+-]?\d+", text)
    if begin:
        yield int(begin[0])


def is_4k_to_somebody(text: str, long_edge: int) -> bool:
    if "".join(text.split()).casefold() == "4k" or re.fullmatch(r"[\s+0]*4(\.0*)?\s*k\W*", text, re.IGNORECASE):
        return True
    edges = re.split(r"[x×*,:;/ ]|\uff58", text.casefold())
    if len(edges) < 2 or not all(any(True for _ in numbers_of(edge)) for edge in edges[:2]):
        return False
    return any(number >= long_edge for edge in edges[:2] for number in numbers_of(edge))


SIGNS = st.sampled_from(["", "+", "-", "0", " ", "\u00a0", "\u3000"])
DIGITS = st.sampled_from(
    ["3840", "3_840", "4096", "1024", "\uff13\uff18\uff14\uff10", "3.84e3", "3840.0", "0xF00", "8"]
)
TIMES = st.sampled_from(["x", "X", "*", "×", " x ", "\uff58", ":", ",", "/"])
ENDS = st.sampled_from(["", " ", "px", ";", "\u200b", ".", "x1"])
SIZES = (
    st.text(max_size=20)
    | st.text("0123456789xX*+-_. kK", max_size=12)
    | st.builds("".join, st.tuples(SIGNS, DIGITS, TIMES, SIGNS, DIGITS, ENDS))
    | st.builds(
        "".join, st.tuples(SIGNS, st.sampled_from(["4", "\uff14", "04", "4."]), ENDS, st.sampled_from("kK\u212a"))
    )
)
LONG_EDGES = st.sampled_from([2_000, 3_840, 6_000])


def asked_in_every_way(size: str) -> Iterator[ImageRequest]:
    """Each request that asks for ``size``, in those ways in which it is not refused."""
    images = [{"image_url": DATA}]
    for fields in ({"size": size}, {"image_config": {"image_size": size}}):
        with suppress(InvalidRequest):
            yield parse_image_request(orjson.dumps({"prompt": "a cube", **fields}))
        with suppress(InvalidRequest):
            yield parse_edit_request(orjson.dumps({"prompt": "a cube", "images": images, **fields}))
    for name in ("size", "image_config[image_size]"):
        with suppress(InvalidRequest):
            yield request_of_form([("prompt", "a cube"), (name, size)], [FILE], Task.EDIT)


def sizes_in(value: Any, name: str = "") -> Iterator[str]:
    if isinstance(value, dict):
        for inner, more in value.items():
            yield from sizes_in(more, inner)
    elif isinstance(value, str) and name in ("size", "image_size", "imageSize"):
        yield value


@given(size=SIZES.filter(lambda text: text.isprintable() or text.isascii()), long_edge=LONG_EDGES)
@example(size="+3840x2160", long_edge=3_840)
@example(size="3_840x2_160", long_edge=3_840)
@example(size="\uff14\uff2b", long_edge=3_840)
@example(size="3840x2160", long_edge=6_000)
def test_what_a_provider_could_read_as_4k_is_charged_as_4k_or_refused(size: str, long_edge: int) -> None:
    try:
        size.encode()
    except UnicodeEncodeError:
        return
    for parameters in ({"size"}, {"image_config"}, {"size", "image_config"}):
        model = make_model(four_k_long_edge=long_edge, parameters=frozenset(parameters))
        for request in asked_in_every_way(size):
            for dialect in DIALECTS.values():
                sent = written(dialect.write_generation(request, model))
                is_4k = any(is_4k_to_somebody(text, long_edge) for text in sizes_in(sent))
                assert not is_4k or tier_of(request, long_edge) is Tier.FOUR_K


@given(size=SIZES.filter(lambda text: text.isprintable() or text.isascii()))
def test_a_chats_size_is_charged_as_it_is_forwarded(size: str) -> None:
    try:
        body = orjson.dumps({"model": "m", "messages": [TURN], "image_config": {"image_size": size}})
        request = parse_chat_request(body)
    except (InvalidRequest, TypeError):
        return
    sent = request.fields["image_config"].get("image_size")
    assert sent == request.image_size
    assert sent is None or not is_4k_to_somebody(sent, 3_840) or tier_of(request, 3_840) is Tier.FOUR_K


# --- One by one -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "size"),
    [
        (" 4k\n", "4K"), ("3840X2160", "3840x2160"), ("AUTO", "auto"), ("0.5k", "0.5K"), ("512", "512"), ("", None),
        (" \t\r\n\v\f", None), ("hd", "hd"), ("999999x1", "999999x1"),
    ],
)  # fmt: skip
def test_a_size_is_written_anew(text: str, size: str | None) -> None:
    assert read_size("size", text) == size
    assert size is None or read_size("size", size) == size


@pytest.mark.parametrize("text", NO_SIZES, ids=ascii)
@pytest.mark.parametrize("field", ["size", "image_config.image_size"])
def test_what_is_no_size_is_refused_by_its_name(field: str, text: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read_size(field, text)
    assert (caught.value.param, caught.value.wire_status) == (field, 400)
    assert f"'{field}' should be WIDTHxHEIGHT" in caught.value.message


@pytest.mark.parametrize(
    ("text", "ratio"), [(" 16:9", "16:9"), ("Auto", "auto"), ("match_input_image", "match_input_image"), ("", None)]
)
def test_an_aspect_ratio_is_written_anew(text: str, ratio: str | None) -> None:
    assert read_aspect_ratio("image_config.aspect_ratio", text) == ratio


@pytest.mark.parametrize("text", ["3840x2160", "16 : 9", "016:9", "+16:9", "0:1", "16:9:1", "1.91:1", "4K", "a" * 33])
def test_what_is_no_aspect_ratio_is_refused_by_its_name(text: str) -> None:
    with pytest.raises(InvalidRequest, match="16:9") as caught:
        parse_image_request(orjson.dumps({"prompt": "a cube", "image_config": {"aspect_ratio": text}}))
    assert caught.value.param == "image_config.aspect_ratio"


@pytest.mark.parametrize(
    ("size", "image_size", "param"),
    [
        ("4K", None, "size"), (None, "4K", "image_config.image_size"), ("auto", "1K", "size"),
        ("1K", None, None), (None, "1024x1024", None), (None, None, None),
    ],
)  # fmt: skip
def test_a_model_that_lists_its_sizes_takes_no_other(
    size: str | None, image_size: str | None, param: str | None
) -> None:
    model = make_model(sizes=("1K", "1024x1024"))
    if param is None:
        check_sizes(size, image_size, model)
        return
    with pytest.raises(InvalidRequest, match="1K, 1024x1024") as caught:
        check_sizes(size, image_size, model)
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("model", "is_refused"),
    [({}, True), ({"four_k_long_edge": 5_000}, False), ({"four_k_long_edge": 0}, False), ({"sizes": ("3840",)}, False)],
)
def test_a_number_alone_that_could_be_a_4k_edge_is_refused(model: dict[str, Any], is_refused: bool) -> None:
    with pytest.raises(InvalidRequest, match="3840x3840") if is_refused else nullcontext():
        check_sizes("3840", None, make_model(**model))
