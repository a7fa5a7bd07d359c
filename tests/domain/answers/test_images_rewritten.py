from __future__ import annotations

import orjson
import pytest

from proxy.domain.answers.answer import EVENT_STREAM, JSON
from proxy.domain.answers.images_rewritten import PREFIX_BYTES_LIMIT, translate
from proxy.upstream.dialects.openai import ANSWER_READING, EVENT_READING
from tests.domain.answer_samples import check_that_thirty_megabytes_flow, events_of, pass_on, passed_however_cut

CREATED_S = 1_764_000_000


def as_events(body: bytes) -> tuple[list[dict[str, object]], int]:
    seen = passed_however_cut(lambda: translate(ANSWER_READING, JSON, stream=True, created_s=CREATED_S), body)
    assert seen.error is None
    return list(events_of(seen.output)), seen.images


def test_an_answer_becomes_events() -> None:
    body = (
        b'{"created":1,"cost":2,"data":[{"b64_json":"AAAA","cost":1,"revised_prompt":"a\\nb"},'
        b'{"media_type":"image/png","url":"https://images.example/1.png"},{"url":""}],"usage":{"total_tokens":3}}'
    )
    head = {"type": "image_generation.completed", "created_at": CREATED_S}
    assert as_events(body) == (
        [
            {**head, "b64_json": "AAAA", "revised_prompt": "a\nb"},
            {**head, "url": "https://images.example/1.png", "media_type": "image/png"},
        ],
        2,
    )


def test_events_become_an_answer_without_the_partial_images() -> None:
    body = (
        b'event: image_generation.partial_image\ndata: {"b64_json":"AAAA"}\n\n'
        b'data: {"type":"image_generation.partial_image","b64_json":"AAAA"}\n\n'
        b'data: {"type":"image_generation.completed","b64_json":"BBBB","usage":{"a":1}}\n\ndata: [DONE]\n\n'
    )
    seen = passed_however_cut(lambda: translate(EVENT_READING, EVENT_STREAM, stream=False, created_s=CREATED_S), body)
    assert orjson.loads(seen.output) == {"created": CREATED_S, "data": [{"b64_json": "BBBB"}]}
    assert (seen.images, seen.usage) == (1, b'{"a":1}')


@pytest.mark.parametrize(
    ("url", "image"),
    [
        ("data:image/png;base64,AAAA", {"b64_json": "AAAA", "media_type": "image/png"}),
        ("data:image\\/png;base64,AAAA", {"b64_json": "AAAA", "media_type": "image/png"}),
        ("DATA:Image/PNG;base64,AAAA", {"b64_json": "AAAA", "media_type": "Image/PNG"}),
        ("DATA:;base64,AAAA", None),
        ("data:text/html;base64,AAAA", None),
        ("data:image/png;name=a;base64,A", {"b64_json": "A", "media_type": "image/png"}),
        ("data:image/svg+xml,%3Csvg/%3E", {"url": "data:image/svg+xml,%3Csvg/%3E"}),
        ("https://images.example/1.png?a=;base64,", {"url": "https://images.example/1.png?a=;base64,"}),
        ("http:" + "x" * PREFIX_BYTES_LIMIT, {"url": "http:" + "x" * PREFIX_BYTES_LIMIT}),
        ("x" * PREFIX_BYTES_LIMIT, None),
        ("data:image/png;base64,", None),
    ],
)
def test_addresses_that_hold_the_image_itself_are_taken_apart(url: str, image: dict[str, str] | None) -> None:
    events, images = as_events(b'{"data":[{"url":"%b"}]}' % url.encode())
    head = {"type": "image_generation.completed", "created_at": CREATED_S}
    assert events == ([] if image is None else [{**head, **image}])
    assert images == len(events)


def test_an_error_in_the_answer_is_raised_cleaned() -> None:
    body = b'{"error":{"message":"no sk-123456789","code":"moderation_blocked"}}'
    seen = passed_however_cut(lambda: translate(ANSWER_READING, JSON, stream=False, created_s=CREATED_S), body)
    assert seen.error == "no [removed]"


def test_a_line_end_in_a_string_does_not_end_a_line_of_ours() -> None:
    make = translate(ANSWER_READING, JSON, stream=True, created_s=CREATED_S)
    assert b'"b64_json":"A B"}\n\n' in pass_on(make, [b'{"data":[{"b64_json":"A\nB"}]}']).output
    assert as_events(b'{"data":[{"b64_json":"A","revised_prompt":"a\nb"}]}')[0][0]["revised_prompt"] == "a b"


@pytest.mark.parametrize("stream", [False, True])
def test_thirty_megabytes_flow(*, stream: bool) -> None:
    answer = translate(ANSWER_READING, JSON, stream=stream, created_s=CREATED_S)
    answer.feed(b'{"data":[{"b64_json":"')
    check_that_thirty_megabytes_flow(answer)
    assert len(answer.feed(b'"}]}') + answer.finish()) > 2
    assert answer.images == 1
