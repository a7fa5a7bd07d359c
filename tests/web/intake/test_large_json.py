"""Large JSON: the same as orjson makes of it, bounded, and never long in one piece."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.domain.errors import BodiesUnavailable, InvalidRequest, PayloadTooLarge, ProxyError
from proxy.web.intake.body_memory import BodyMemory
from proxy.web.intake.large_json import (
    RUN_BYTES_LEAST,
    TEXT_BYTES_LIMIT,
    VALUES_LIMIT,
    WIDE_BYTES,
    read_large_json,
)

LONG = "A" * RUN_BYTES_LEAST
ADDRESS = f"data:image/png;base64,{LONG}/+=="
STALL_S = 0.05
MEBIBYTE = 2**20


def read(body: bytes) -> dict[str, Any]:
    return asyncio.run(read_large_json(bytearray(body)))


VARIED = base64.b64encode(bytes(range(256)) * 20).decode()
LEADS = ["![a](data:image/png;base64,", "é ", "\\", '"', "\n", "\u0001", "data:,", "a b"]
IMAGES = [begin + LONG for begin in ("iVBORw0KGgo", "/9j/", "UklGR", "R0lGOD", "AAAAIGZ0eX")]
IN_TEXTS = [f"{lead}{VARIED}{lead}{LONG}" for lead in LEADS]
texts = st.sampled_from(
    [*IMAGES, *IN_TEXTS, VARIED, LONG, ADDRESS, ADDRESS + "B", f'"{ADDRESS}', f'a"{ADDRESS}"b', "data:", ADDRESS + "é",
     f"\\{ADDRESS}", ""]
)  # fmt: skip
values = st.recursive(
    texts | st.integers(-(2**53), 2**53) | st.none() | st.booleans(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.text(max_size=3), values, max_size=4), st.booleans())
def test_it_is_what_orjson_reads(given_body: dict[str, Any], slashes: bool) -> None:
    body = orjson.dumps(given_body)
    assert read(body.replace(b"/", b"\\/") if slashes else body) == given_body


@given(st.dictionaries(st.text(max_size=2), values, max_size=2), st.binary(max_size=6), st.integers(0, 9_000))
def test_what_is_no_json_is_refused_as_orjson_refuses_it(body: dict[str, Any], noise: bytes, at: int) -> None:
    text = orjson.dumps(body)
    text = text[:at] + noise + text[at:]
    try:
        expected = orjson.loads(text)
    except orjson.JSONDecodeError:
        expected = None
    try:
        assert read(text) == expected
    except ProxyError as error:
        assert type(expected) is not dict or "data: address" in error.message  # noqa: PT017 - either may happen


@pytest.mark.parametrize(
    "body", [f'{{"{ADDRESS}":1}}', f'{{"a":"{ADDRESS}","a":1}}', f'{{"a":{{"b":"{ADDRESS}"}},"a":"{ADDRESS}"}}']
)
def test_an_address_that_would_be_lost_is_refused(body: str) -> None:
    with pytest.raises(InvalidRequest, match="given twice"):
        read(body.encode())


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_in_base64_alone_is_no_text(image: str) -> None:
    image += "A" * TEXT_BYTES_LIMIT
    body = {"messages": [{"content": [{"source": {"data": image}}]}]}
    for text in (orjson.dumps(body), orjson.dumps(body).replace(b"/", b"\\/")):
        assert read(text) == body


def test_an_image_in_the_middle_of_a_text_is_no_text_either() -> None:
    address = ADDRESS + "A" * TEXT_BYTES_LIMIT
    text = f'here: ![a]({address}) or <img src="{address}"> ☃'
    body = {"messages": [{"role": "assistant", "content": text}, {"content": [{"type": "text", "text": text}]}]}
    for dumped in (orjson.dumps(body), json.dumps(body).encode(), orjson.dumps(body).replace(b"/", b"\\/")):
        assert read(dumped) == body


def test_what_a_client_sends_back_with_its_images_is_no_text_either() -> None:
    signature = VARIED * (TEXT_BYTES_LIMIT // len(VARIED) + 1)
    body = {"messages": [{"content": "x", "extra_content": {"google": {"thought_signature": signature}}}]}
    assert read(orjson.dumps(body)) == body


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_base64_in_lines_is_no_text_either(end: str) -> None:
    lines = end.join(VARIED[at : at + 76] for at in range(0, len(VARIED), 76))
    address = "data:image/png;base64," + end.join([lines] * (TEXT_BYTES_LIMIT // len(VARIED) + 1))
    body = {
        "messages": [{"content": [{"type": "image_url", "image_url": {"url": address}}]}, {"content": f"a\n{address}"}]
    }
    for dumped in (orjson.dumps(body), orjson.dumps(body).replace(b"/", b"\\/")):
        assert read(dumped) == body


@pytest.mark.parametrize("before", ["", "a", "\\", "\\\\", '"', "\u0001", "☃\u0001", "\\u", "/", "\n", "\\/"])
@pytest.mark.parametrize("at", range(2_040, 2_058))
def test_what_is_cut_is_no_part_of_an_escape(before: str, at: int) -> None:
    """Wherever a run begins in a body of which so many bytes are looked at at once."""
    body = {"a": "-" * (at - 6 - len(before)) + " " + before + VARIED, "b": before + "/" * 9 + VARIED}
    for dumped in (orjson.dumps(body), json.dumps(body).encode()):
        assert read(dumped) == body
        assert read(dumped.replace(b"/", b"\\/")) == body


def test_texts_that_take_more_memory_than_bytes_are_counted() -> None:
    held: list[int] = []
    texts = [f"a ![]({ADDRESS})", f"☃ ![]({ADDRESS})", f"é {ADDRESS} {ADDRESS}", ADDRESS]
    given = asyncio.run(read_large_json(bytearray(orjson.dumps({"a": texts})), hold_wide=held.append))
    assert given == {"a": texts}
    sizes = [WIDE_BYTES * len(text) for text in texts[1:3]]
    assert max(held) == sum(sizes)
    assert len(held) == 2


def test_a_text_that_would_take_too_much_memory_is_refused() -> None:
    def refuse(_size: int) -> None:
        raise PayloadTooLarge("too much")

    with pytest.raises(PayloadTooLarge, match="too much"):
        asyncio.run(read_large_json(bytearray(orjson.dumps({"a": "☃" + ADDRESS})), hold_wide=refuse))


@pytest.mark.parametrize("word", ["a", "A", "7", "aB", "a1"])
def test_one_long_word_is_text(word: str) -> None:
    with pytest.raises(PayloadTooLarge, match="beside the images"):
        read(orjson.dumps({"prompt": word * TEXT_BYTES_LIMIT}))


def test_what_is_beside_the_images_is_bounded() -> None:
    with pytest.raises(PayloadTooLarge, match="beside the images"):
        read(orjson.dumps({"image": ADDRESS, "prompt": "a" * TEXT_BYTES_LIMIT}))
    with pytest.raises(InvalidRequest, match="more than 100,000 values"):
        read(orjson.dumps({"messages": [1] * VALUES_LIMIT}))
    with pytest.raises(InvalidRequest, match="'messages' is nested more than 64 deep") as caught:
        read(orjson.dumps({"image": ADDRESS, "messages": orjson.loads("[" * 64 + "]" * 64)}))
    assert caught.value.param == "messages"


WORST_BODIES: dict[str, Callable[[int], bytes]] = {
    "one image": lambda size: b'{"a":"data:image/png;base64,%b"}' % (b"A" * size),
    "images": lambda size: (
        b'{"a":[%b]}' % b",".join([b'"data:image/png;base64,%b"' % (b"A" * MEBIBYTE)] * (size // MEBIBYTE))
    ),
    "slashes": lambda size: b'{"a":"data:image/png;base64,%b"}' % (rb"\/" * (size // 2)),
    "escapes": lambda size: b'{"a":"data:image/png;base64,%b"}' % (rb"\n" * (size // 2)),
    "newlines": lambda size: b'{"a":"data:image/png;base64,%b"}' % (b"\n" * size),
    "text": lambda size: b'{"a":"%b"}' % (b"a" * size),
    "words": lambda size: b'{"a":"%b"}' % (b"a" * 4_096 + b" ") * (size // 4_097),
    "short runs": lambda size: b'{"a":"%b"}' % ((VARIED[:4_096].encode() + b" ") * (size // 4_097)),
    "an image in text": lambda size: b'{"a":"a ![](data:image/png;base64,%b)"}' % (b"A" * size),
    "an image beside emoji": lambda size: (
        b'{"a":"\xf0\x9f\x98\x80 ![](data:image/png;base64,%b)"}' % (b"A" * (size // 4))
    ),
    "emoji": lambda size: b'{"a":"%b"}' % ("\U0001f600".encode() * (size // 4)),
    "objects": lambda size: b'{"a":[%b]}' % b",".join([b"{}"] * (size // 3)),
    "members": lambda size: b'{"a":{%b}}' % b",".join([b'"k":1'] * (size // 6)),
    "number": lambda size: b'{"a":%b}' % (b"1" * size),
    "blanks": lambda size: b'{"a":%b1}' % (b" " * size),
    "other begins": lambda size: b'{"a":[%b]}' % b",".join([b'"UklGR"'] * (size // 8)),
    "quotes": lambda size: b'{"a":%b}' % (b'"' * size),
    "begins": lambda size: b'{"a":[%b]}' % b",".join([b'"data:"'] * (size // 8)),
    "cut off": lambda size: b'{"a":"data:%b' % (b"A" * size),
}
"""Each of so many bytes, about."""


@pytest.mark.slow
@pytest.mark.parametrize("kind", WORST_BODIES)
def test_nothing_holds_the_event_loop(kind: str) -> None:
    body = bytearray(WORST_BODIES[kind](32 * MEBIBYTE))

    async def longest_step() -> float:
        """The processor's time, as others use this machine too."""
        reading, longest = read_large_json(body).__await__(), 0.0
        while True:
            began = time.thread_time()
            try:
                next(reading)
            except (StopIteration, ProxyError):
                return max(longest, time.thread_time() - began)
            longest = max(longest, time.thread_time() - began)

    assert any(asyncio.run(longest_step()) < STALL_S for _ in range(3))


def test_bodies_have_a_bound_together_and_each_key_a_share() -> None:
    memory = BodyMemory(100, max_body_bytes=30)
    with memory.open("one") as one, memory.open("one") as again, memory.open("two") as two:
        one.grow_to(20)
        one.grow_to(10)
        with pytest.raises(BodiesUnavailable):
            again.grow_to(11)
        again.grow_to(10)
        two.grow_to(30)
        with memory.open("three") as three, memory.open("four") as four:
            three.grow_to(30)
            with pytest.raises(BodiesUnavailable):
                four.grow_to(11)
            assert memory.held_bytes == 90
    assert memory.held_bytes == 0
    with memory.open("one") as one:
        one.grow_to(30)
    assert memory.held_bytes == 0
