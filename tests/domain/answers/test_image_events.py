from __future__ import annotations

import tracemalloc

import orjson
import pytest

from proxy.domain.answers.holder import HELD_BYTES_LIMIT
from proxy.domain.answers.image_events import ImageEvents
from proxy.domain.errors import ProxyError, UpstreamError
from proxy.domain.parsing.server_sent_events import KEEP_ALIVE
from tests.domain.answer_samples import Passed, events_of, pass_on, passed_however_cut

PARTIAL = b'event: image_generation.partial_image\ndata: {"type":"image_generation.partial_image","b64_json":"AAAA","partial_image_index":0}\n\n'  # noqa: E501 - as providers send it
COMPLETED = (
    b'event: image_generation.completed\ndata: {"type":"image_generation.completed","b64_json":"BBBB",'
    b'"cost":0.04,"usage":{"total_tokens":7}}\n\n'
)
SEEN = b'event: image_generation.completed\ndata: {"type":"image_generation.completed","b64_json":"BBBB"}\n\n'


def read_error(text: bytes) -> ProxyError:
    error = orjson.loads(text)
    return UpstreamError(f"cleaned {error['message'] if error else ''}")


def make() -> ImageEvents:
    return ImageEvents(read_error)


def read(body: bytes) -> Passed:
    return passed_however_cut(make, body)


def test_events_pass_scrubbed_and_completed_ones_are_counted() -> None:
    assert read(PARTIAL + COMPLETED + COMPLETED) == Passed(PARTIAL + SEEN + SEEN, 2, b'{"total_tokens":7}', True)


@pytest.mark.parametrize(
    ("event", "images"),
    [
        (b'data: {"type":"image_edit.completed","b64_json":"B"}\n\n', 1),
        (b'data: {"b64_json":"B","type":"image_edit.completed"}\n\n', 1),
        (b'data: {"b64_json":"B","type":"image_edit.partial_image"}\n\n', 0),
        (b'event: image_edit.partial_image\ndata: {"b64_json":"B"}\n\n', 0),
        (b'data: {"url":"https://images.example/1.png"}\n\n', 1),
        (b'data: {"type":"image_generation.completed","b64_json":""}\n\n', 0),
        (b'data: {"type":"image_generation.completed"}\n\n', 0),
        (b'data: {"type":"image_generation.completed",\ndata: "b64_json":"B"}\n\n', 1),
        (b'\xef\xbb\xbfdata: {"type":"image_generation.completed","b64_json":"B"}\r\r', 1),
        (b': a comment\n\nid: 7\nretry: 10\ndata: {"b64_json":"B"}', 1),
        (b"data: [DONE]\n\n", 0),
        (b"", 0),
    ],
)
def test_what_counts(event: bytes, images: int) -> None:
    seen = read(event)
    assert (seen.images, seen.error) == (images, None)
    written = [event for event in events_of(seen.output) if "error" not in event]
    assert len(written) == (b"{" in event)


def test_a_two_line_string_does_not_break_a_line_of_ours() -> None:
    assert read(b'data: {"revised_prompt":"a\ndata: b"}\n\n').output == b'data: {"revised_prompt":"a b"}\n\n'


@pytest.mark.parametrize(
    "event",
    [
        b'event: error\ndata: {"type":"error","error":{"message":"sk-1","cost":3}}\n\n',
        b'event: error\ndata: {"type":"error","message":"sk-1","code":"x"}\n\n',
        b'data: {"error":{"message":"sk-1"}}\n\n',
    ],
)
def test_a_providers_error_is_told_cleaned_and_ends_it(event: bytes) -> None:
    seen = read(COMPLETED + event + COMPLETED)
    first, error = events_of(seen.output)
    assert (first["b64_json"], seen.images, seen.whole) == ("BBBB", 1, False)
    assert error == {
        "type": "error",
        "error": {"message": "cleaned sk-1", "type": "upstream_error", "param": None, "code": "upstream_error"},
    }


def test_an_error_event_without_a_report_is_an_error_all_the_same() -> None:
    assert [event["type"] for event in events_of(read(b"event: error\ndata: {}\n\n").output)] == ["error"]


@pytest.mark.parametrize(("body", "images", "whole"), [(PARTIAL, 0, True), (COMPLETED + PARTIAL, 1, False)])
def test_a_stream_that_ends_before_its_image_tells_so(body: bytes, images: int, *, whole: bool) -> None:
    seen = read(body)
    assert (seen.images, seen.whole) == (images, whole)
    assert [event["type"] for event in events_of(seen.output)][-1] == "error"


@pytest.mark.parametrize("body", [b"data: x\n\n", b'data: {"a":1\n\n', b'data: {"b64_json":"AAAA', b"data: [DO\n\n{}"])
def test_what_is_no_event_of_images_is_malformed_or_none(body: bytes) -> None:
    seen = read(COMPLETED + body)
    assert seen.images == 1
    assert seen.error is not None or seen.output == SEEN


def test_the_end_of_an_image_is_kept_until_something_follows() -> None:
    answer = make()
    assert answer.feed(COMPLETED) == SEEN[:-1]
    assert answer.comment == KEEP_ALIVE
    assert answer.feed(b'data: {"type":"x"}\n\n') == b'\ndata: {"type":"x"}\n\n'
    assert answer.finish() == b""


def test_large_events_flow_and_may_not_be_interrupted() -> None:
    answer = make()
    answer.feed(b'data: {"type":"image_generation.completed","b64_json":"')
    piece = b"A" * HELD_BYTES_LIMIT
    assert answer.comment == KEEP_ALIVE
    assert len(answer.feed(piece)) > HELD_BYTES_LIMIT
    tracemalloc.start()
    try:
        for _ in range(160):
            assert answer.feed(piece) == piece
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1_000_000
    assert answer.comment == b""
    assert answer.write_error(UpstreamError("x")) is None
    assert answer.feed(b'"}\n\n') + answer.finish() == b'"}\n\n'
    assert answer.images == 1


def test_a_body_that_breaks_off_in_a_small_event_is_told_between_events() -> None:
    answer = make()
    output = answer.feed(COMPLETED + PARTIAL[:-20])
    answer.break_off()
    output += answer.write_error(UpstreamError("broke off")) or b""
    assert [event["type"] for event in events_of(output)] == ["image_generation.completed", "error"]
    assert answer.images == 1


def test_large_and_small_events_are_counted_alike() -> None:
    large = b'data: {"b64_json":"%b","usage":{"a":1}}\n\n' % (b"A" * HELD_BYTES_LIMIT)
    for pieces in ([large], [large[:9], large[9:]], [large[at : at + 1000] for at in range(0, len(large), 1000)]):
        assert pass_on(make(), pieces) == Passed(large.replace(b',"usage":{"a":1}', b""), 1, b'{"a":1}', True)
