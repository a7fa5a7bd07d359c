"""A provider's answer in a form of its own, on its way to a client that knows chat completions.

What differs between providers is a ``ChatReading``. Images are passed on while they arrive, and count as those of
``chat_answer`` do.
"""

from __future__ import annotations

import contextlib
import re
from base64 import b64decode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from typing_extensions import override

from proxy.domain.answers.answer import EVENT_STREAM, Answer, ErrorReader
from proxy.domain.answers.chat_writing import ChatEnd, ChatWriter
from proxy.domain.answers.documents import DocumentListener, DocumentReader
from proxy.domain.answers.holder import HELD_BYTES_LIMIT
from proxy.domain.answers.image_counter import PayloadImages, SeenImages, TextImages
from proxy.domain.errors import ProxyError, UpstreamTruncated
from proxy.domain.parsing.image_header import Size
from proxy.domain.parsing.json_shapes import Shape, object_of, text_of
from proxy.domain.parsing.json_tokens import MalformedResponse
from proxy.domain.requests.inputs import PLAIN_BYTES, SIGNATURE_BYTES, kind_of_file

"""Up to here a part of an answer is held, until it is known whether it is a thought, and of what kind it is."""

_SIGNATURE_BASE64_BYTES = SIGNATURE_BYTES * 4 // 3
_image_type = re.compile(r"image/[A-Za-z0-9.+-]{1,64}", re.IGNORECASE)

EndReader = Callable[[Mapping[str, bytes], bool], ChatEnd | None]
"""Why the answer ended, by its notes and by whether anything came; None where the provider has not said."""

UsageReader = Callable[[bytes], Mapping[str, Any]]
"""The standard token counts in a provider's usage, which is a JSON object."""


@dataclass(frozen=True, slots=True)
class ChatReading:
    """How to read one kind of document.

    In its ``shape``, each element is a part of the answer: its payload is named ``text``, ``b64_json`` or ``url``, its
    notes are ``media_type`` and ``skip`` (true where it is a thought). A payload outside of elements is a part of its
    own. Other notes are ``usage``, ``error``, and what ``read_end`` understands; ``done`` is that of a stream's end.
    """

    shape: Shape
    read_error: ErrorReader
    read_end: EndReader
    read_usage: UsageReader


class ChatTranslation(Answer, DocumentListener):
    """A chat's answer in any form, written anew in the form that the client has asked for."""

    complete = False

    def __init__(self, reading: ChatReading, content_type: str, writer: ChatWriter, *, in_text: bool = True) -> None:
        """Read one document or, where ``content_type`` says so, a stream of them, and write with ``writer``.

        Images in text count where ``in_text``.
        """
        self.images = 0
        self.sizes: list[Size | None] = []
        self.usage: bytes | None = None
        self._reading = reading
        self._writer = writer
        self._is_stream = content_type == EVENT_STREAM
        self._documents = DocumentReader(reading.shape, content_type)
        self._notes: dict[str, bytes] = {}
        self._is_done = False
        self._seen = SeenImages(in_text=in_text)
        self._payload = PayloadImages(self._seen)
        self._text = TextImages(self._seen)
        self._has_content = self._failed = False
        self._in_part = self._is_alone = self._skipped = self._taking = self._begun = self._is_whole = False
        self._kind = ""
        self._media_type = b""
        self._held: list[bytes] = []
        self._held_bytes = 0

    @property
    @override
    def content_type(self) -> str:
        return self._writer.content_type

    @property
    @override
    def comment(self) -> bytes:
        return self._writer.comment

    @property
    def whole(self) -> bool:
        """Whether no error came after the answer had begun; one before is raised."""
        return not self._failed

    @override
    def feed(self, piece: bytes) -> bytes:
        if self._failed:
            return b""
        try:
            self._documents.feed(piece, self)
        except ProxyError as error:
            return self._fail(error)
        return self._writer.take()

    @override
    def finish(self) -> bytes:
        """A stream that has not said why it ended has broken off."""
        if self._failed:
            return b""
        try:
            self._documents.finish(self)
            end = self._end()
            self._text.end()
            self._count()
            return self._writer.finish(end, self._usage())
        except ProxyError as error:
            return self._fail(error)

    @override
    def break_off(self) -> None:
        """An image whose last byte has come was made, whatever was to follow it."""
        with contextlib.suppress(MalformedResponse):
            self._count()

    @override
    def write_error(self, error: ProxyError) -> bytes | None:
        return self._writer.write_error(error)

    def _fail(self, error: ProxyError) -> bytes:
        """It is an event where there are events and one was there before; else it is raised."""
        written = self._writer.write_error(error) if self._has_content else None
        if written is None:
            raise error
        self._failed = True
        return written

    def _end(self) -> ChatEnd:
        notes = {**self._notes, "done": b"true"} if self._is_done else self._notes
        end = self._reading.read_end(notes, self._has_content)
        if end is None and self._is_stream:
            raise UpstreamTruncated("The provider's stream ended before its answer was complete.")
        if end is None and not self._has_content:
            raise MalformedResponse("the answer holds nothing")
        return end or ChatEnd("stop")

    def _usage(self) -> Mapping[str, Any] | None:
        return None if self.usage is None else self._reading.read_usage(self.usage)

    # --- Documents ---------------------------------------------------------------------------------------------------

    @override
    def begin_document(self, name: bytes) -> None: ...

    @override
    def passed(self, piece: bytes) -> None:
        """It is all written anew."""

    @override
    def end_document(self, name: bytes) -> None: ...

    @override
    def end_of_stream(self) -> None:
        self._is_done = True

    # --- Parts -------------------------------------------------------------------------------------------------------

    @override
    def begin_element(self) -> None:
        """Here, a part of the answer."""
        self._in_part = True
        self._skipped = self._taking = self._begun = self._is_whole = False
        self._kind = ""
        self._media_type = b""
        self._held, self._held_bytes = [], 0

    @override
    def end_element(self) -> None:
        self._in_part = self._is_alone = False
        before = self.images
        if not self._skipped and self._held:
            self._begin()
        self._count()
        if self._begun:
            self._writer.end(charged=self.images > before)

    @override
    def begin_payload(self, name: str) -> None:
        """Of two payloads of a part, the first one counts."""
        if not self._in_part:
            self.begin_element()
            self._is_alone = True
        self._taking = not (self._skipped or self._kind)
        if self._taking:
            self._kind = name
            self._payload.begin()

    @override
    def payload(self, piece: bytes) -> None:
        """Raises MalformedResponse where it would end a line."""
        if not self._taking or not piece:
            return
        if b"\n" in piece or b"\r" in piece:
            raise MalformedResponse("a string holds a line's end")
        if self._kind != "text":
            self._payload.add(piece)
        if self._begun:
            self._write(piece)
            return
        self._held.append(piece)
        self._held_bytes += len(piece)
        if self._held_bytes > HELD_BYTES_LIMIT:
            self._begin()

    @override
    def end_payload(self) -> None:
        if self._taking:
            self._taking = False
            self._is_whole = self._kind != "text"
        if self._is_alone:
            self.end_element()

    @override
    def note(self, name: str, value: bytes) -> None:
        """Raises the error that the provider reports."""
        if value == b"null":
            return
        if name == "error":
            raise self._reading.read_error(value)
        if name == "usage":
            self.usage = object_of(value) or self.usage
        elif self._in_part and name == "skip":
            # Where more was passed on than is held, it is not called back, but not charged either.
            self._skipped = self._skipped or value == b"true"
        elif self._in_part:
            self._media_type = _read_media_type(value)
        else:
            self._notes[name] = value

    def _begin(self) -> None:
        held, self._held = b"".join(self._held), []
        self._begun = self._has_content = True
        if self._kind == "text":
            self._writer.begin_text()
        else:
            kind = self._media_type or _guess_media_type(held)
            self._writer.begin_image(b"" if self._kind == "url" else b"data:%b;base64," % kind)
        self._write(held)

    def _write(self, piece: bytes) -> None:
        if self._kind == "text":
            self._text.add(piece)
        self._writer.write(piece)

    def _count(self) -> None:
        """Count the part where it is an image that is whole, and what was found in text."""
        if self._is_whole and not self._skipped:
            self._is_whole = False
            self._payload.end()
        self.images, self.sizes = self._seen.count, self._seen.sizes


def _read_media_type(note: bytes) -> bytes:
    kind = text_of(note)
    # What is said to be of another kind is written as what its first bytes say, so that no browser runs it.
    return kind.encode() if _image_type.fullmatch(kind) else b""


def _guess_media_type(base64_prefix: bytes) -> bytes:
    begin = base64_prefix[: 2 * _SIGNATURE_BASE64_BYTES].replace(b"\\/", b"/")[:_SIGNATURE_BASE64_BYTES]
    try:
        return kind_of_file(None, b64decode(begin)).encode()
    except ValueError:
        return PLAIN_BYTES.encode()
