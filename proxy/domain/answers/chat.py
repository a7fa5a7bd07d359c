"""A chat completion on its way to the client: billing taken out, images counted, whatever place they stand in.

The members are those of https://platform.openai.com/docs/api-reference/chat/object and its chunks, and ``images``. The
same image twice in one answer, as streams repeat it, counts once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import orjson
from typing_extensions import override

from proxy.domain.answers.answer import EVENT_STREAM, JSON, Answer, ErrorReader
from proxy.domain.answers.documents import DocumentReader
from proxy.domain.answers.holder import AnswerHolder, error_event
from proxy.domain.answers.image_counter import PayloadImages, SeenImages, TextImages
from proxy.domain.answers.image_events import ImageEvents
from proxy.domain.errors import ProxyError, UpstreamTruncated
from proxy.domain.parsing.image_header import Size
from proxy.domain.parsing.json_shapes import PASSED, WHOLE, Shape, ShapedScanner, ShapeListener, object_of
from proxy.domain.parsing.json_tokens import MalformedResponse
from proxy.domain.parsing.server_sent_events import DONE, write_event


def _passed(*names: bytes) -> dict[bytes, Shape]:
    return dict.fromkeys(names, PASSED)


TEXT = "text"
CHOICES_LIMIT = 16
"""Of one stream, whose texts are read each for itself; those beyond are read as one."""

_TEXT = Shape(passes=True, payload=TEXT)
_URL = Shape(passes=True, payload="url")
_DATA = Shape(passes=True, payload="data")
_INLINE = Shape(passes=True, members={**_passed(b"mime_type", b"mimeType"), b"data": _DATA})
_INLINES: Mapping[bytes, Shape] = {b"inline_data": _INLINE, b"inlineData": _INLINE}
_PART = Shape(
    passes=True,
    members={
        **_passed(b"type", b"index", b"refusal", b"media_type"),
        b"text": _TEXT,
        b"image_url": Shape(passes=True, payload="url", members={b"url": _URL, b"detail": PASSED}),
        b"url": _URL,
        b"b64_json": _DATA,
        **_INLINES,
    },
)
_PARTS = Shape(passes=True, items=_PART)
_MESSAGE = Shape(
    passes=True,
    members={
        **_passed(b"role", b"refusal", b"reasoning", b"reasoning_content", b"name", b"tool_call_id"),
        **dict.fromkeys((b"tool_calls", b"function_call", b"annotations", b"audio", b"reasoning_details"), WHOLE),
        b"content": Shape(passes=True, payload=TEXT, items=_PART),
        b"images": _PARTS,
        **_INLINES,
    },
)
_TOKENS = _passed(
    b"cached_tokens", b"audio_tokens", b"text_tokens", b"image_tokens", b"reasoning_tokens",
    b"accepted_prediction_tokens", b"rejected_prediction_tokens",
)  # fmt: skip
_DETAILS = Shape(passes=True, members=_TOKENS)
_CHOICE: Mapping[bytes, Shape] = {
    b"index": Shape(passes=True, note="index"),
    b"finish_reason": Shape(passes=True, note="finish_reason"),
    b"logprobs": WHOLE,
    b"message": _MESSAGE,
    b"delta": _MESSAGE,
    b"error": Shape(note="error"),
}
CHAT_SHAPE = Shape(
    passes=True,
    members={
        **_passed(b"id", b"object", b"created", b"system_fingerprint", b"service_tier"),
        b"model": Shape(passes=True, constant="model"),
        b"choices": Shape(passes=True, items=Shape(passes=True, element=True, members=_CHOICE)),
        b"usage": Shape(
            passes=True,
            note="usage",
            members={
                **_passed(b"prompt_tokens", b"completion_tokens", b"total_tokens"),
                b"prompt_tokens_details": _DETAILS,
                b"completion_tokens_details": _DETAILS,
            },
        ),
        b"error": Shape(note="error"),
    },
)
_AS_DELTA: Mapping[bytes, Shape] = {**_CHOICE, b"message": replace(_MESSAGE, renamed=b"delta")}
CHUNK_SHAPE = replace(
    CHAT_SHAPE,
    members={
        **CHAT_SHAPE.members,
        b"object": Shape(passes=True, constant="object"),
        b"choices": Shape(passes=True, items=Shape(passes=True, element=True, members=_AS_DELTA)),
    },
)
"""A completion, written as a chunk."""


class ChatJson(Answer, ShapeListener):
    """A small answer is held, and may become an error."""

    content_type = JSON
    whole = True
    comment = b""

    def __init__(self, model: str, read_error: ErrorReader, *, in_text: bool = True) -> None:
        """The client sees ``model`` as the model's name; ``read_error`` reads what the provider says of an error.

        Images in text count where ``in_text``.
        """
        self.usage: bytes | None = None
        self._seen = SeenImages(in_text=in_text)
        self._payload = PayloadImages(self._seen)
        self._text = TextImages(self._seen)
        self._reading: PayloadImages | TextImages = self._payload
        self._read_error = read_error
        self._error: ProxyError | None = None
        self._choices = 0
        self._scanner = ShapedScanner(CHAT_SHAPE, {"model": orjson.dumps(model)})
        self._holder = AnswerHolder()
        self.images = 0
        self.sizes: list[Size | None] = []

    @property
    @override
    def complete(self) -> bool:
        return self._holder.begun and self._scanner.complete

    @override
    def feed(self, piece: bytes) -> bytes:
        return self._hold(self._scanner.feed(piece, self))

    @override
    def finish(self) -> bytes:
        passed = self._hold(self._scanner.finish(self))
        if not self._choices:
            raise MalformedResponse("the answer has no choices")
        return passed + self._holder.end()

    @override
    def break_off(self) -> None:
        """Each image has been counted when it was whole."""

    def write_error(self, _error: ProxyError) -> None:
        """JSON that has begun has no room for an error."""

    def _hold(self, passed: bytes) -> bytes:
        if self._error is not None:
            raise self._error
        return self._holder.pass_on(passed)

    @override
    def begin_element(self) -> None:
        """Here, a choice."""
        self._choices += 1

    @override
    def end_element(self) -> None: ...

    @override
    def begin_payload(self, name: str) -> None:
        self._reading = self._text if name == TEXT else self._payload
        if name != TEXT:
            self._payload.begin()

    @override
    def payload(self, piece: bytes) -> None:
        self._reading.add(piece)
        self.images, self.sizes = self._seen.count, self._seen.sizes

    @override
    def end_payload(self) -> None:
        self._reading.end()
        self.images, self.sizes = self._seen.count, self._seen.sizes

    @override
    def note(self, name: str, value: bytes) -> None:
        if name == "usage":
            self.usage = object_of(value) or self.usage
        elif name == "error" and value != b"null":
            self._error = self._read_error(value)


class ChatEvents(ImageEvents):
    """Chunks of a chat completion; otherwise as the stream of images.

    ``usage`` is asked for whether or not the client wants it: the chunk that holds nothing else is for whoever does.
    """

    _shape = CHAT_SHAPE
    _comes_as = EVENT_STREAM

    def __init__(self, model: str, read_error: ErrorReader, *, wants_usage: bool, in_text: bool = True) -> None:
        """The client sees ``model`` as the model's name. Images in text count where ``in_text``."""
        constants = {"model": orjson.dumps(model), "object": b'"chat.completion.chunk"'}
        super().__init__(read_error, DocumentReader(self._shape, self._comes_as, constants))
        self._wants_usage = wants_usage
        self._seen = SeenImages(in_text=in_text)
        self._payload = PayloadImages(self._seen)
        self._texts: dict[bytes, TextImages] = {}
        self._choice = b""
        self._reading: PayloadImages | TextImages = self._payload
        self._counted = 0
        self._choices = 0
        self._ended = False
        self._done = False

    @property
    def whole(self) -> bool:
        """Whether no error came, and the answer said that it ended."""
        return not self._failed and self._ended

    @override
    def finish(self) -> bytes:
        """A stream that ends before the answer does ends with an error."""
        self._documents.finish(self)
        if not self._ended and not self._failed:
            self._holder.insert(
                error_event(UpstreamTruncated("The provider's stream ended before its answer was complete."))
            )
        if self._done and not self._failed:
            self._holder.insert(write_event(DONE))
        return self._holder.take_last()

    @override
    def begin_element(self) -> None:
        """Here, a choice."""
        self._choices += 1
        self._choice = b"0"

    @override
    def begin_payload(self, name: str) -> None:
        """A choice's text goes on from one event to the next."""
        if name == TEXT:
            choice = self._choice if self._choice in self._texts or len(self._texts) < CHOICES_LIMIT else b"0"
            self._reading = self._texts.setdefault(choice, TextImages(self._seen))
        else:
            self._reading = self._payload
            self._payload.begin()

    @override
    def payload(self, piece: bytes) -> None:
        self._reading.add(piece)

    @override
    def end_payload(self) -> None:
        if self._reading is self._payload:
            self._payload.end()

    @override
    def note(self, name: str, value: bytes) -> None:
        if name == "index":
            self._choice = value
        else:
            super().note(name, value)

    @override
    def begin_document(self, name: bytes) -> None:
        super().begin_document(name)
        self._choices = 0

    @override
    def end_of_stream(self) -> None:
        """The word is sent at the very end, when the answer has been charged."""
        self._done = True
        self._end()

    def _end(self) -> None:
        self._ended = True
        for text in self._texts.values():
            text.end()
        self.images, self.sizes = self._seen.count, self._seen.sizes

    @override
    def end_document(self, name: bytes) -> None:
        notes = self._notes
        if name == b"error" or "error" in notes:
            self._fail(notes)
            return
        if "finish_reason" in notes:
            self._end()
        if not self._choices and not self._wants_usage and not self._holder.begun:
            self._holder.drop()
            return
        self.images, self.sizes = self._seen.count, self._seen.sizes
        self._holder.end(charged=self.images > self._counted)
        self._counted = self.images


class ChatChunk(ChatEvents):
    """A completion that came whole, for a client that has asked for chunks: it becomes one of them while it comes."""

    _shape = CHUNK_SHAPE
    _comes_as = JSON

    @override
    def finish(self) -> bytes:
        self._documents.finish(self)
        if not self._choices and not self._failed:
            raise MalformedResponse("the answer has no choices")
        if not self._failed:
            self._end()
            self._holder.insert(write_event(DONE))
        return self._holder.take_last()

    @override
    def break_off(self) -> None:
        """The one event holds all images, which count one by one."""
        self.images, self.sizes = self._seen.count, self._seen.sizes
