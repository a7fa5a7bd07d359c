from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.domain.answers.holder import HELD_BYTES_LIMIT
from proxy.domain.answers.images import ImagesAnswer, ImagesScanner
from proxy.domain.parsing.json_tokens import MalformedResponse
from tests.domain.json_documents import IN_AN_IMAGE, TOP_LEVEL, is_address
from tests.support.examples import examples

LARGE = "A" * (HELD_BYTES_LIMIT + 1)

scalars = st.one_of(st.none(), st.booleans(), st.integers(-(2**53), 2**53), st.text(max_size=20))
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
)
addresses = st.builds(
    str.__add__,
    st.sampled_from(
        ["https:", "HTTP://", "data:image/", "data:text/html,", "javascript:", "\tjavascript:", " http:", ""]
    ),
    st.text(max_size=80),
)
images = st.dictionaries(
    st.sampled_from(["url", "b64_json", "revised_prompt", "media_type", "cost", "data"]), values | addresses
)
answers = st.fixed_dictionaries(
    {"data": st.lists(images, max_size=4)},
    optional=dict.fromkeys(("created", "background", "size", "usage", "cost", "error"), values),
)


def read(pieces: list[bytes]) -> tuple[bytes, int, bytes | None]:
    answer = ImagesAnswer()
    output = b"".join(answer.feed(piece) for piece in pieces) + answer.finish()
    return output, answer.images, answer.usage


def has_payload(image: dict[str, Any]) -> bool:
    url, data = image.get("url"), image.get("b64_json")
    return (type(url) is str and is_address(url)) or (type(data) is str and data != "")


def cut(body: bytes, at: list[int]) -> list[bytes]:
    ends = sorted({min(end, len(body)) for end in at} | {0, len(body)})
    return [body[begin:end] for begin, end in itertools.pairwise(ends)]


@examples(200)
@given(
    answer=answers,
    cuts=st.lists(st.integers(0, 500), max_size=6),
    large=st.booleans(),
    indent=st.sampled_from([None, 2]),
)
def test_every_cut_gives_the_same_and_only_what_is_allowed(
    answer: dict[str, Any], cuts: list[int], *, large: bool, indent: int | None
) -> None:
    if large:
        answer = {"padding": LARGE, **answer}
    body = json.dumps(answer, indent=indent).encode()
    output, count, usage = read([body])
    assert read(cut(body, cuts)) == (output, count, usage)
    passed = json.loads(output)
    assert set(passed) <= TOP_LEVEL
    assert len(passed["data"]) == len(answer["data"])
    for image in passed["data"]:
        assert set(image) <= IN_AN_IMAGE
        assert type(image.get("url")) is not str or is_address(image["url"])
    assert count == sum(map(has_payload, answer["data"]))
    assert usage is None or json.loads(usage) == answer["usage"]
    assert len(output) <= len(body)


@examples(200)
@given(answer=answers)
def test_small_and_large_answers_are_read_alike(answer: dict[str, object]) -> None:
    body = json.dumps(answer).encode()
    scanner = ImagesScanner()
    streamed = scanner.feed(body)
    scanner.finish()
    output, count, usage = read([body])
    assert json.loads(output) == json.loads(streamed)
    assert count == scanner.images
    assert (usage is None) == (scanner.usage is None)
    assert usage is None or json.loads(usage) == json.loads(scanner.usage or b"")


@pytest.mark.parametrize("body", [b"", b"[]", b'{"created":1}', b'{"data":{}}', b'{"data":[1]}', b'{"data":[', b"\xff"])
def test_what_is_no_images_response_is_malformed(body: bytes) -> None:
    for pieces in ([body], [body[:1], body[1:]]):
        with pytest.raises(MalformedResponse):
            read(pieces)


def test_a_small_answer_is_held_until_it_is_whole() -> None:
    answer = ImagesAnswer()
    assert answer.feed(b'{"data":[{"url":"http:x"}') == b""
    assert answer.feed(b"]}") == b""
    assert not answer.complete
    assert answer.finish() == b'{"data":[{"url":"http:x"}]}'


def test_a_large_answer_flows() -> None:
    answer = ImagesAnswer()
    first = answer.feed(b'{"data":[{"b64_json":"' + LARGE.encode())
    assert len(first) > HELD_BYTES_LIMIT
    assert answer.feed(b'"}]}') == b'"}]}'
    assert answer.complete
    assert answer.finish() == b""
    assert answer.images == 1


@pytest.mark.parametrize("padding", ["", LARGE])
def test_what_was_complete_when_it_broke_off_is_counted(padding: str) -> None:
    answer, pad = ImagesAnswer(), padding.encode()
    answer.feed(b'{"usage":{"total_tokens":3},"x":"%b","data":[{"url":"http:a"},{"url":"http:b"},{"url":"http:c' % pad)
    answer.break_off()
    assert answer.images == 2
    assert answer.usage == b'{"total_tokens":3}'


def test_text_that_is_not_utf_8_is_mended() -> None:
    body = b'{"data":[{"url":"http:x","revised_prompt":"caf\xe9"}]}'
    passed = body.replace(b"\xe9", b"?")
    assert read([body]) == (passed, 1, None)
    assert read([bytes([byte]) for byte in body]) == (passed, 1, None)


@pytest.mark.parametrize("padding", ["", LARGE])
@pytest.mark.parametrize(
    ("usage", "kept"),
    [
        (b'{"a":[' + b",".join([b"{}"] * 70) + b"]}", True),
        (b'{"a":"' + b"{" * 70 + b'"}', True),
        (b'{"a":' + b"[" * 40 + b"]" * 40 + b"}", True),
        (b'{"a":' + b"[" * 260 + b"]" * 260 + b"}", False),
    ],
    ids=["wide", "brackets in a string", "deep", "too deep"],
)
def test_usage_is_kept_by_its_depth_and_not_by_its_brackets(padding: str, usage: bytes, *, kept: bool) -> None:
    body = b'{"x":"%b","data":[{"url":"http:x"}],"usage":%b}' % (padding.encode(), usage)
    if not kept and padding:
        with pytest.raises(MalformedResponse, match="too deeply"):
            read([body])
    else:
        assert read([body])[1:] == (1, usage if kept else None)
