from __future__ import annotations

import base64
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.domain.answers.answer import Answer
from proxy.domain.answers.chat.completion import ChatJson
from proxy.domain.answers.chat.writing import ChatHead
from proxy.domain.answers.images.answer import read_images
from proxy.domain.answers.images.writing import ImagesHead
from proxy.domain.parsing.image_header import PREFIX_BYTES_LIMIT, read_size
from proxy.upstream.dialects.openai import CHAT_READING, READING
from tests.domain.answer_samples import passed_however_cut

Image = pytest.importorskip("PIL.Image")

KINDS = [
    ("PNG", {}), ("JPEG", {}), ("JPEG", {"progressive": True}), ("JPEG", {"exif": b"Exif\0\0" + b"x" * 5_000}),
    ("WEBP", {}), ("WEBP", {"lossless": True}), ("WEBP", {"exif": b"Exif\0\0x"}),
]  # fmt: skip


def drawn(kind: str, size: tuple[int, int], **options: object) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, "teal").save(file, kind, **options)
    return base64.b64encode(file.getvalue())


@pytest.mark.parametrize(("kind", "options"), KINDS)
@pytest.mark.parametrize("size", [(64, 32), (1, 1), (1500, 300)])
def test_every_kind_tells_its_size(kind: str, options: dict[str, object], size: tuple[int, int]) -> None:
    text = drawn(kind, size, **options)
    assert read_size(text) == size
    assert read_size(text.replace(b"/", rb"\/").replace(b"+", rb"\u002b").replace(b"=", rb"\u003D")) == size


def test_with_an_alpha_channel_webp_says_it_elsewhere() -> None:
    file = io.BytesIO()
    Image.new("RGBA", (70, 50), (0, 0, 0, 10)).save(file, "WEBP")
    assert read_size(base64.b64encode(file.getvalue())) == (70, 50)


@pytest.mark.parametrize(("kind", "options"), KINDS)
def test_an_image_cut_anywhere_has_its_size_or_none(kind: str, options: dict[str, object]) -> None:
    text = drawn(kind, (64, 32), **options)[:9_000]
    assert {read_size(text[:end]) for end in range(0, len(text), 3)} <= {None, (64, 32)}


@given(
    text=st.binary(max_size=200),
    lead=st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF1234WEBPVP8 "]),
)
def test_anything_at_all_can_be_read(text: bytes, lead: bytes) -> None:
    for data in (text, base64.b64encode(lead + text)):
        size = read_size(data)
        assert size is None or min(size) >= 0


def test_a_jpeg_with_more_metadata_than_is_looked_at_has_no_size() -> None:
    assert read_size(drawn("JPEG", (64, 32), exif=b"Exif\0\0" + b"x" * PREFIX_BYTES_LIMIT)) is None


PICTURE = drawn("PNG", (64, 32))


def reader(*, events: bool, stream: bool) -> Answer:
    return read_images(READING, ImagesHead(1), comes_as_events=events, stream=stream)


@pytest.mark.parametrize("padding", [b"", b"x" * 66_000])
def test_every_answer_tells_the_sizes_of_its_images(padding: bytes) -> None:
    document = b'{"created":1,"x":"%b","data":[{"b64_json":"%b"},{"url":"https://a.example/"}]}' % (padding, PICTURE)
    plain = document.replace(b'"x"', b'"model"')
    answers = [(stream, body) for stream in (False, True) for body in (document, plain)]
    for stream, body in answers:
        answer = reader(events=False, stream=stream)
        for at in range(0, len(body), 999):
            answer.feed(body[at : at + 999])
        answer.finish()
        assert answer.sizes == [(64, 32), None]


def test_events_and_chat_tell_them_too() -> None:
    event = b'data: {"type":"image_generation.completed","b64_json":"%b"}\n\n' % PICTURE
    assert passed_however_cut(lambda: reader(events=True, stream=True), event).sizes == ((64, 32),)
    url = b"data:image/png;base64," + PICTURE
    chat = b'{"choices":[{"message":{"images":[{"image_url":{"url":"%b"}}]}}]}' % url
    assert passed_however_cut(lambda: ChatJson(ChatHead("1", 1, "m"), CHAT_READING), chat).sizes == ((64, 32),)
