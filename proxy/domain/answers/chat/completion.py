"""A chat completion on its way to the client: billing taken out, images counted, whatever place they stand in.

The members are those of https://platform.openai.com/docs/api-reference/chat/object and its chunks, and ``images``. The
same image twice in one answer, as streams repeat it, counts once.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import replace

import orjson
from typing_extensions import override

from proxy.domain.answers.answer import JSON, Answer
from proxy.domain.answers.chat.rewritten import ChatReading, ChatTranslation
from proxy.domain.answers.chat.writing import ChatHead, CompletionJson
from proxy.domain.answers.holder import AnswerHolder
from proxy.domain.answers.images.counter import CountedImages, PayloadImages, SeenImages
from proxy.domain.answers.images.in_text import TextImages
from proxy.domain.answers.places import IMAGE_OBJECTS, NAMED_BASE64, NAMED_KIND, NAMED_URL, URL_LISTS
from proxy.domain.errors import ProxyError
from proxy.domain.parsing.image_header import Size
from proxy.domain.parsing.json_shapes import (
    PASSED,
    WHOLE,
    Shape,
    ShapedScanner,
    ShapeListener,
    object_of,
    says_anything,
)
from proxy.domain.parsing.json_tokens import MalformedResponse
from proxy.domain.usage import later_usage


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
_ADDRESSES: Mapping[bytes, Shape] = {
    **dict.fromkeys(NAMED_URL, _URL),
    **dict.fromkeys(NAMED_BASE64, _DATA),
    **_passed(b"type", b"detail", *NAMED_KIND),
}
_HOLDER = Shape(
    passes=True,
    payload="url",
    members={**_ADDRESSES, b"data": _DATA, b"file_data": _URL, **_passed(b"filename")},
)
_PART = Shape(
    passes=True,
    payload="url",
    members={
        **_ADDRESSES,
        **dict.fromkeys((*NAMED_URL, *IMAGE_OBJECTS, b"file"), _HOLDER),
        **_passed(b"index", b"refusal", b"thought", b"thought_signature", b"thoughtSignature"),
        b"text": _TEXT,
        b"extra_content": WHOLE,
    },
)
_PARTS = Shape(passes=True, payload="url", items=_PART, members=_PART.members)
_URLS = Shape(passes=True, items=_URL)
_PASSED_WHOLE = (
    b"tool_calls", b"function_call", b"annotations", b"audio", b"reasoning_details", b"extra_content",
)  # fmt: skip
_MESSAGE = Shape(
    passes=True,
    members={
        **_passed(b"role", b"refusal", b"reasoning", b"reasoning_content", b"name", b"tool_call_id"),
        **_passed(b"thought_signature", b"thoughtSignature"),
        **dict.fromkeys(_PASSED_WHOLE, WHOLE),
        b"content": Shape(
            passes=True, payload=TEXT, items=_PART, members={**_PART.members, b"parts": Shape(passes=True, items=_PART)}
        ),
        **dict.fromkeys((b"images", b"image", b"image_url", b"multi_mod_content", b"parts"), _PARTS),
        **dict.fromkeys(URL_LISTS, _URLS),
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
    # OpenAI's schema requires it, as a number; some leave it out, and some write a date.
    leads=(b"created",),
    members={
        **_passed(b"id", b"object", b"system_fingerprint", b"service_tier"),
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

    def __init__(self, head: ChatHead, reading: ChatReading, *, in_text: bool = True) -> None:
        """The client sees the model of ``head`` as the model's name; ``reading`` is that of its errors.

        Images in text count where ``in_text``.
        """
        self._head = head
        self._reading = reading
        self._finds_text = in_text
        self.usage: bytes | None = None
        self._seen = SeenImages()
        self._payload = PayloadImages(self._seen)
        self._linked = CountedImages(self._seen)
        self._text = TextImages(is_wanted=in_text)
        self._in_text = False
        self._error: ProxyError | None = None
        self._choices = 0
        self._has_reason = False
        self._unsent = b""
        self._scanner = ShapedScanner(
            CHAT_SHAPE, {"model": orjson.dumps(head.model), "created": b"%d" % head.created_s}
        )
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

    @override
    def close(self) -> bytes | None:
        """Written anew where none of it was returned; else ended where it stands, unless that is within a string."""
        if not self.images:
            return None
        if self._holder.begun:
            ending = self._scanner.close({} if self._has_reason else {b"finish_reason": b'"length"'})
            return None if ending is None else self._unsent + ending
        anew = ChatTranslation(
            self._reading, CompletionJson(self._head), comes_as_events=False, in_text=self._finds_text
        )
        with contextlib.suppress(MalformedResponse, ProxyError):
            anew.feed(self._holder.end())
        anew.break_off()
        return anew.close()

    def write_error(self, _error: ProxyError) -> None:
        """JSON that has begun has no room for an error."""

    def _hold(self, passed: bytes) -> bytes:
        if self._error is not None:
            self._unsent = self._holder.pass_on(passed)
            raise self._error
        return self._holder.pass_on(passed)

    @override
    def begin_element(self) -> None:
        """Here, a choice."""
        self._choices += 1
        self._has_reason = False

    @override
    def end_element(self) -> None: ...

    @override
    def begin_payload(self, name: str) -> None:
        self._in_text = name == TEXT
        if not self._in_text:
            self._payload.begin()

    @override
    def payload(self, piece: bytes) -> None:
        if self._in_text:
            self._text.add(piece, self._linked)
        else:
            self._payload.add(piece)
        self.images, self.sizes = self._seen.count, self._seen.sizes

    @override
    def end_payload(self) -> None:
        if self._in_text:
            self._text.end(self._linked)
        else:
            self._payload.end()
        self.images, self.sizes = self._seen.count, self._seen.sizes

    @override
    def note(self, name: str, value: bytes) -> None:
        if name == "usage":
            self.usage = later_usage(self.usage, object_of(value))
        elif name == "finish_reason":
            self._has_reason = True
        elif name == "error" and says_anything(value):
            self._error = self._reading.read_error(value)
