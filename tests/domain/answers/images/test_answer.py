"""Small answers, which are read at once where they are plain: as ``ImagesReader`` reads them."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.domain.answers.holder import HELD_BYTES_LIMIT
from proxy.domain.answers.images.answer import ImagesAnswer
from proxy.domain.answers.images.reader import ImagesReader
from proxy.domain.answers.images.writing import ImagesHead, ImagesJson
from proxy.domain.errors import UpstreamError
from proxy.domain.parsing.json_tokens import MalformedResponse
from proxy.upstream.dialects.openai import READING
from tests.domain.answer_samples import Passed, pass_on
from tests.domain.answers.images.samples import CREATED_S, HEAD, check_output, cut, delivered, make, read
from tests.support.examples import examples

LARGE = "A" * (HELD_BYTES_LIMIT + 1)
PNG = "iVBORw0KGgoAAAANSUhEUgAAAEAAAAAgCAYAAAA="
TOKENS = ImagesHead(CREATED_S, shows_tokens=True)

scalars = st.none() | st.booleans() | st.integers(0, 2**53) | st.floats(allow_nan=False, allow_infinity=False)
texts = st.text(max_size=20)
base64s = st.text("ABab01+/=", min_size=1, max_size=9) | st.just(PNG)
urls = st.builds(
    str.__add__,
    st.sampled_from(["https:", "HTTP://", "data:image/", "data:text/html,", "javascript:", "\tjavascript:", " http:"]),
    texts,
) | base64s.map("data:image/png;base64,".__add__)
images = st.fixed_dictionaries(
    {},
    optional={
        "b64_json": base64s | st.none() | urls,
        "url": urls | st.none() | base64s,
        "revised_prompt": texts | st.none(),
        "media_type": texts | st.none(),
        "cost": scalars,
    },
)
plain_images = st.fixed_dictionaries(
    {"b64_json": base64s} | {}, optional={"revised_prompt": texts | st.none(), "url": st.none()}
) | st.fixed_dictionaries({"url": texts.map("https://a.example/".__add__)}, optional={"media_type": texts})
settings_of_answer = st.text(max_size=9) | scalars | st.lists(scalars, max_size=1)
answers = st.fixed_dictionaries(
    {"created": st.integers(0, 2**53), "data": st.lists(plain_images, max_size=3) | st.lists(images, max_size=3)},
    optional={
        **dict.fromkeys(("background", "output_format", "quality", "size"), settings_of_answer),
        "usage": st.none()
        | st.dictionaries(
            st.sampled_from(["input_tokens", "output_tokens", "total_tokens", "cost"]), st.integers(0, 99) | texts
        ),
        "id": texts,
        "model": texts,
        "cost": scalars,
    },
)


def reader(head: ImagesHead = HEAD) -> ImagesReader:
    return ImagesReader(READING, ImagesJson(head), comes_as_events=False)


def meaning(seen: Passed) -> tuple[Any, ...]:
    """All that there is to it but how its JSON is spelt."""
    return (
        orjson.loads(seen.output) if seen.output else None,
        seen.images,
        None if seen.usage is None else orjson.loads(seen.usage),
        seen.sizes,
        seen.error,
    )


@examples(400)
@given(answers, st.booleans(), st.sampled_from([None, 2]))
@example({"created": 1, "data": [{"b64_json": PNG}, {"url": "https:x", "revised_prompt": None}]}, True, None)
def test_what_is_read_at_once_is_read_as_in_pieces(answer: Any, shows_tokens: bool, indent: int | None) -> None:
    body = json.dumps(answer, indent=indent).encode()
    head = TOKENS if shows_tokens else HEAD
    seen = pass_on(make(head=head), [body])
    assert meaning(seen) == meaning(pass_on(reader(head), [body]))
    if seen.error is None:
        check_output(seen.output, stream=False)
        assert len(delivered(seen.output, stream=False)) == seen.images


@examples(150)
@given(answers)
def test_small_and_large_answers_are_read_alike(answer: dict[str, Any]) -> None:
    small = pass_on(make(), [orjson.dumps(answer)])
    # The same images again would be on their way.
    large = pass_on(make(), [orjson.dumps({"padding": LARGE, **answer})])
    assert meaning(small) == meaning(large)


@examples(200)
@given(answers, st.lists(st.integers(0, 2**17), max_size=6), st.booleans(), st.booleans())
def test_it_does_not_matter_how_the_body_is_cut(answer: Any, cuts: list[int], large: bool, ends: bool) -> None:
    body = orjson.dumps({"padding": LARGE, **answer} if large else answer)
    body = body if ends else body[: -len(body) // 3]
    whole = pass_on(make(), [body])
    seen = pass_on(make(), cut(body, cuts))
    assert (seen, seen.sizes, seen.closed) == (whole, whole.sizes, whole.closed)


def test_a_plain_answer_is_passed_on() -> None:
    body = {
        "created": 1,
        "id": "x",
        "model": "theirs",
        "data": [{"b64_json": PNG, "revised_prompt": "a"}, {"url": "https://a.example/", "revised_prompt": None}],
        "size": "64x32",
        "quality": None,
        "background": {"cost": 1},
        "usage": {"input_tokens": 5, "output_tokens": 6, "cost": 4},
    }
    seen = read(orjson.dumps(body), head=TOKENS)
    assert orjson.loads(seen.output) == {
        "created": 1,
        "data": [{"b64_json": PNG, "revised_prompt": "a"}, {"url": "https://a.example/"}],
        "size": "64x32",
        "usage": {
            "total_tokens": 11,
            "input_tokens": 5,
            "output_tokens": 6,
            "input_tokens_details": {"text_tokens": 5, "image_tokens": 0},
        },
    }
    assert (seen.images, seen.sizes, orjson.loads(seen.usage or b"")) == (2, ((64, 32), None), body["usage"])
    assert "usage" not in orjson.loads(read(orjson.dumps(body)).output)


@pytest.mark.parametrize("created", ["2026", 1.5, None, [1], "x", True])
def test_when_it_was_made_is_a_number_of_seconds(created: Any) -> None:
    seen = read(orjson.dumps({"created": created, "data": [{"b64_json": "AAAA"}]}))
    assert orjson.loads(seen.output) == {"created": CREATED_S, "data": [{"b64_json": "AAAA"}]}


def test_a_number_that_is_no_time_is_read_alike_in_small_and_large_answers() -> None:
    body = b'{"created":-5,"data":[{"b64_json":"AAAA"}]}'
    assert meaning(pass_on(make(), [body])) == meaning(pass_on(reader(), [body]))


@pytest.mark.parametrize("body", [b"", b"[]", b'{"created":1}', b'{"data":[', b"\xff", b"text"])
def test_what_is_no_images_response_is_malformed(body: bytes) -> None:
    seen = read(body)
    assert (seen.error is not None, seen.images, seen.closed) == (True, 0, None)
    answer = make()
    with pytest.raises(MalformedResponse):
        answer.feed(body) + answer.finish()


@pytest.mark.parametrize(
    "body", [b'{"data":[]}', b'{"created":1,"data":[]}', b'{"data":[{}]}', b'{"data":null}', b'{"data":1}']
)
def test_an_empty_list_is_an_answer(body: bytes) -> None:
    seen = read(body)
    assert (seen.error, seen.images, orjson.loads(seen.output)["data"]) == (None, 0, [])


@pytest.mark.parametrize("end", [b"\n\ndata: [DONE]\n\n", b" \n", b"data:"])
def test_what_ends_a_stream_may_follow_it(end: bytes) -> None:
    body = b'{"created":1,"data":[{"b64_json":"AAAA"}]}'
    assert orjson.loads(read(body + end).output) == orjson.loads(body)


def test_a_small_answer_is_held_until_it_is_whole() -> None:
    answer = make()
    assert answer.feed(b'{"created":1,"data":[{"url":"http:x"}') == b""
    assert answer.feed(b"]}") == b""
    assert (answer.complete, answer.comment, answer.write_error(UpstreamError("x"))) == (False, b"", None)
    assert answer.finish() == b'{"data":[{"url":"http:x"}],"created":1}'


def test_an_answer_of_large_text_and_small_images_is_held_too() -> None:
    answer = make()
    assert answer.feed(b'{"padding":"%b","data":[{"url":"http:x"}' % LARGE.encode()) == b""
    assert answer.feed(b"]}") == b""
    assert answer.finish() == b'{"data":[{"url":"http:x"}],"created":%d}' % CREATED_S


def test_a_large_answer_flows() -> None:
    answer = make()
    first = answer.feed(b'{"data":[{"b64_json":"' + LARGE.encode())
    assert len(first) > HELD_BYTES_LIMIT
    assert answer.feed(b'"}]}') == b'"}'
    assert answer.images == 1
    assert answer.finish() == b'],"created":%d}' % CREATED_S


@pytest.mark.parametrize("padding", ["", LARGE])
def test_what_was_complete_when_it_broke_off_is_charged_and_delivered(padding: str) -> None:
    answer = make()
    answer.feed(
        b'{"usage":{"total_tokens":3},"x":"%b","data":[{"url":"http:a"},{"url":"http:b"},{"url":"http:c'
        % padding.encode()
    )
    answer.break_off()
    assert (answer.images, answer.usage) == (2, b'{"total_tokens":3}')
    assert orjson.loads(answer.close() or b"") == {
        "data": [{"url": "http:a"}, {"url": "http:b"}],
        "created": CREATED_S,
    }


def test_what_has_flowed_is_closed_between_two_images_alone() -> None:
    body = b'{"data":[{"b64_json":"%b"},{"url":"http:b"},{"b64_json":"%b"}]}' % (LARGE.encode(), b"B" * 100)
    for end in range(len(LARGE), len(body)):
        seen = pass_on(make(), [body[:end]])
        assert seen.error is not None
        if seen.closed is None:
            # Its beginning is there, by which it is known to be an image, and it is sent as it comes.
            assert end <= len(LARGE) + 22 or body[:end].endswith(b"B" * 20)
            continue
        data = orjson.loads(seen.closed)["data"]
        assert data == [{"b64_json": LARGE}, {"url": "http:b"}, {"b64_json": "B" * 100}][: seen.images]
        assert seen.images == len(data)


def test_text_that_is_not_utf_8_is_mended() -> None:
    seen = read(b'{"created":1,"data":[{"url":"http:x","revised_prompt":"caf\xe9"}]}')
    assert orjson.loads(seen.output)["data"] == [{"url": "http:x", "revised_prompt": "caf?"}]


@pytest.mark.parametrize("padding", ["", LARGE])
@pytest.mark.parametrize(
    ("usage", "kept"),
    [
        (b'{"a":[' + b",".join([b"{}"] * 70) + b"]}", True),
        (b'{"a":"' + b"{" * 70 + b'"}', True),
        (b'{"a":' + b"[" * 40 + b"]" * 40 + b"}", True),
        (b'{"a":' + b"[" * 260 + b"]" * 260 + b"}", False),
        (b'{"a":"' + b"x" * 20_000 + b'"}', False),
        (b"7", False),
        (b"[1]", False),
        (b"null", False),
    ],
    ids=["wide", "brackets in a string", "deep", "too deep", "too large", "a number", "an array", "null"],
)
def test_usage_is_kept_by_its_depth_and_not_by_its_brackets(padding: str, usage: bytes, *, kept: bool) -> None:
    padding_member = b'"x":"%b",' % padding.encode() if padding else b""
    body = b'{%b"created":1,"data":[{"url":"http:x"}],"usage":%b}' % (padding_member, usage)
    seen = pass_on(make(), [body])
    if padding and usage.startswith(b'{"a":[[') and not kept:
        assert "too deeply" in (seen.error or "")
    else:
        assert (seen.error, seen.images, seen.usage) == (None, 1, usage if kept else None)


@pytest.mark.parametrize(("events", "stream"), [(False, False), (False, True), (True, False), (True, True)])
def test_the_quick_way_is_for_json_alone(*, events: bool, stream: bool) -> None:
    kind = ImagesReader if events or stream else ImagesAnswer
    assert type(make(events=events, stream=stream)) is kind
