from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.domain.answers.holder import HELD_BYTES_LIMIT
from proxy.domain.answers.images.writing import ImagesHead, ImagesJson, ImagesStream, settings_asked
from proxy.domain.errors import UpstreamError
from proxy.domain.parsing.json_tokens import MalformedResponse
from proxy.domain.parsing.server_sent_events import KEEP_ALIVE
from tests.domain.answer_samples import events_of
from tests.domain.answers.images.samples import COMPLETED, CREATED_S, HEAD, NO_TOKENS, check_output, delivered

LARGE = b"A" * (HELD_BYTES_LIMIT + 1)
USAGE = b'{"input_tokens":5,"output_tokens":6}'
TOKENS = {
    "total_tokens": 11,
    "input_tokens": 5,
    "output_tokens": 6,
    "input_tokens_details": {"text_tokens": 5, "image_tokens": 0},
}


def write(writer: ImagesJson | ImagesStream, *images: bytes, is_partial: bool = False, **details: bytes) -> bytes:
    """What may be sent by then."""
    out = b""
    for image in images:
        writer.begin(b"url" if image.startswith(b"http") else b"b64_json", is_partial=is_partial)
        writer.payload(image)
        out += writer.take()
        writer.end(details, None, charged=not is_partial)
        out += writer.take()
    return out


# --- JSON ------------------------------------------------------------------------------------------------------------


def test_small_answers_are_held() -> None:
    writer = ImagesJson(HEAD)
    assert write(writer, b"AAAA", b"http:x", revised_prompt=b'"a\\n"', media_type=b'"image/png"', size=b'"1x1"') == b""
    more = {"revised_prompt": "a\n", "media_type": "image/png"}
    assert orjson.loads(writer.finish({"size": b'"2x2"', "created": b"7", "cost": b"1"}, USAGE)) == {
        "data": [{"b64_json": "AAAA", **more}, {"url": "http:x", **more}],
        "created": 7,
        "size": "2x2",
    }


def test_large_answers_flow() -> None:
    writer = ImagesJson(HEAD)
    assert write(writer, b"AAAA") == b""
    writer.begin(b"b64_json", is_partial=False)
    writer.payload(LARGE)
    assert writer.take() == b'{"data":[{"b64_json":"AAAA"},{"b64_json":"' + LARGE
    writer.payload(b"BB")
    assert writer.take() == b"BB"
    writer.end({}, None, charged=True)
    assert writer.take() == b'"}'
    assert writer.close({}, None) == b'],"created":%d}' % CREATED_S


def test_what_flows_is_closed_between_two_images_alone() -> None:
    writer = ImagesJson(HEAD)
    out = write(writer, LARGE)
    writer.begin(b"b64_json", is_partial=False)
    writer.payload(b"BB")
    assert orjson.loads(out + (writer.close({}, None) or b""))["data"] == [{"b64_json": LARGE.decode()}]
    writer.begin(b"b64_json", is_partial=False)
    writer.payload(b"BB")
    out = writer.take()
    assert (out.endswith(b"BB"), writer.close({}, None)) == (True, None)
    assert writer.finish({}, None) == b'],"created":%d}' % CREATED_S


@pytest.mark.parametrize(
    ("notes", "created"),
    [
        ({"created": b"7"}, 7),
        ({"created_at": b"8"}, 8),
        ({"created": b"7", "created_at": b"8"}, 7),
        ({"created": b'"7"'}, CREATED_S),
        ({"created": b"7.5"}, CREATED_S),
        ({"created": b"-7"}, CREATED_S),
        ({"created": b"[7]"}, CREATED_S),
        ({}, CREATED_S),
    ],
)
def test_there_is_always_a_time(notes: dict[str, bytes], created: int) -> None:
    writer = ImagesJson(HEAD)
    write(writer, b"AAAA")
    assert orjson.loads(writer.finish(notes, None)) == {"data": [{"b64_json": "AAAA"}], "created": created}


@pytest.mark.parametrize(
    ("created", "seen"), [(b"7", 7), (b'"7"', CREATED_S), (b"7.5", CREATED_S), (b"-7", CREATED_S), (b"{}", CREATED_S)]
)
def test_an_event_always_has_a_time(created: bytes, seen: int) -> None:
    writer = ImagesStream(HEAD)
    (event,) = events_of(write(writer, b"AAAA", created_at=created) + writer.finish({}, None))
    assert event["created_at"] == seen


@pytest.mark.parametrize("shows_tokens", [False, True])
def test_tokens_are_shown_where_the_operator_says_so(*, shows_tokens: bool) -> None:
    head = ImagesHead(CREATED_S, shows_tokens=shows_tokens)
    writer = ImagesJson(head)
    write(writer, b"AAAA")
    assert orjson.loads(writer.finish({}, USAGE)).get("usage") == (TOKENS if shows_tokens else None)
    stream = ImagesStream(head)
    stream.begin(b"b64_json", is_partial=False)
    stream.payload(b"AAAA")
    stream.end({}, USAGE, charged=True)
    (event,) = events_of(stream.take() + stream.finish({}, USAGE))
    assert event["usage"] == (TOKENS if shows_tokens else NO_TOKENS)


def test_what_is_held_can_be_taken_back_and_closed() -> None:
    writer = ImagesJson(HEAD)
    write(writer, b"AAAA")
    writer.begin(b"b64_json", is_partial=False)
    writer.payload(b"BB")
    assert orjson.loads(writer.close({}, None) or b"")["data"] == [{"b64_json": "AAAA"}]
    writer = ImagesJson(HEAD)
    writer.begin(b"b64_json", is_partial=False)
    writer.payload(b"AA")
    assert writer.cancel()
    write(writer, b"CCCC")
    assert orjson.loads(writer.finish({}, None))["data"] == [{"b64_json": "CCCC"}]


def test_json_has_no_room_for_an_error_nor_for_a_comment() -> None:
    writer = ImagesJson(HEAD)
    write_error: Callable[[UpstreamError], object] = writer.write_error
    assert (writer.comment, writer.takes_partials, write_error(UpstreamError("x"))) == (b"", False, None)


@given(
    st.lists(st.tuples(st.sampled_from([b"AA", b"http:x", LARGE]), st.booleans()), max_size=5),
    st.booleans(),
)
def test_all_that_is_written_is_in_form_and_what_was_taken_back_is_not_there(
    images: list[tuple[bytes, bool]],
    stream: bool,
) -> None:
    writer: ImagesJson | ImagesStream = ImagesStream(HEAD) if stream else ImagesJson(HEAD)
    out, kept = b"", 0
    for image, is_kept in images:
        writer.begin(b"url" if image.startswith(b"http") else b"b64_json", is_partial=False)
        writer.payload(image)
        out += writer.take()
        if is_kept or not writer.cancel():
            writer.end({}, None, charged=is_kept)
            kept += 1
        out += writer.take()
    out += writer.finish({}, None)
    check_output(out, stream=stream)
    assert len(delivered(out, stream=stream)) == kept


# --- Events ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["image_generation", "image_edit"])
def test_an_event_has_all_that_openais_packages_require(task: str) -> None:
    writer = ImagesStream(ImagesHead(CREATED_S, task=task, asked={"size": b'"64x64"', "quality": b'"high"'}))
    out = write(writer, b"DDDD", is_partial=True, partial_image_index=b"2")
    out += write(writer, b"AAAA", size=b'"32x32"', background=b"[1]", output_format=b'"webp"', created_at=b"7")
    out += write(writer, b"http:x") + writer.finish({}, None)
    check_output(out, stream=True)
    asked = {"quality": "high", "size": "64x64"}
    draft, first, second = events_of(out)
    without_usage = {name: value for name, value in COMPLETED.items() if name != "usage"}
    assert draft == {
        **without_usage, **asked, "type": f"{task}.partial_image", "b64_json": "DDDD", "partial_image_index": 2,
    }  # fmt: skip
    completed = {**COMPLETED, **asked, "type": f"{task}.completed"}
    assert first == {**completed, "b64_json": "AAAA", "size": "32x32", "output_format": "webp", "created_at": 7}
    assert second == {**completed, "url": "http:x"}
    assert f"event: {task}.completed\n".encode() in out


@pytest.mark.parametrize("index", [b"", b'"1"', b"-1", b"1.5", b"{}"])
def test_a_partial_image_always_has_a_number(index: bytes) -> None:
    writer = ImagesStream(HEAD)
    out = write(writer, b"DDDD", is_partial=True, partial_image_index=index) + writer.finish({}, None)
    assert [event["partial_image_index"] for event in events_of(out)] == [0]


def test_the_end_of_an_image_is_kept_until_something_follows() -> None:
    writer = ImagesStream(HEAD)
    first = write(writer, b"AAAA")
    assert (first.endswith(b"}\n"), first.endswith(b"\n\n"), writer.comment) == (True, False, KEEP_ALIVE)
    assert write(writer, b"BBBB").startswith(b"\nevent: ")
    assert writer.finish({}, None) == b"\n"


def test_large_events_flow_and_may_not_be_interrupted() -> None:
    writer = ImagesStream(HEAD)
    writer.begin(b"b64_json", is_partial=False)
    assert (writer.comment, writer.take()) == (KEEP_ALIVE, b"")
    writer.payload(LARGE)
    assert writer.take().endswith(LARGE)
    assert (writer.comment, writer.cancel(), writer.write_error(UpstreamError("x"))) == (b"", False, None)
    writer.end({}, None, charged=True)
    assert writer.comment == KEEP_ALIVE
    assert writer.close({}, None) is None


def test_an_error_stands_between_two_events() -> None:
    writer = ImagesStream(HEAD)
    out = write(writer, b"AAAA")
    writer.begin(b"b64_json", is_partial=False)
    writer.payload(b"BB")
    out += writer.write_error(UpstreamError("broke off")) or b""
    first, error = events_of(out)
    assert (first["b64_json"], error["error"]["message"]) == ("AAAA", "broke off")


@pytest.mark.parametrize("end", [b"\n", b"\r"])
def test_a_line_end_does_not_end_a_line_of_ours(end: bytes) -> None:
    writer = ImagesStream(HEAD)
    writer.begin(b"b64_json", is_partial=False)
    with pytest.raises(MalformedResponse):
        writer.payload(b"AA" + end + b"data: x")


def test_a_request_says_what_events_repeat() -> None:
    fields: dict[str, Any] = {"size": "64x64", "quality": 5, "prompt": "x", "output_format": 'we"bp'}
    assert settings_asked(fields) == {"size": b'"64x64"', "output_format": b'"we\\"bp"'}
