"""A provider's answer in a form of its own, on its way to a client that knows chat completions.

What differs between providers is a ``ChatReading``. Images are passed on while they arrive, and count as those of
``completion`` do.
"""

from __future__ import annotations

import contextlib
import re
from base64 import b64decode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from typing_extensions import override

from proxy.domain.answers.answer import Answer, ErrorReader
from proxy.domain.answers.chat.writing import ChatEnd, ChatWriter
from proxy.domain.answers.documents import DocumentListener, DocumentReader
from proxy.domain.answers.holder import HELD_BYTES_LIMIT
from proxy.domain.answers.images.counter import CountedImages, PayloadImages, SeenImages
from proxy.domain.answers.images.in_text import TextImages
from proxy.domain.answers.places import BASE64, SIGNATURE, TEXT
from proxy.domain.errors import ProxyError, UpstreamTruncated
from proxy.domain.parsing.image_addresses import PREFIX_BYTES_LIMIT, read_place
from proxy.domain.parsing.image_header import Size
from proxy.domain.parsing.json_shapes import Shape, object_of, says_anything, text_of
from proxy.domain.parsing.json_tokens import MalformedResponse
from proxy.domain.requests.inputs import PLAIN_BYTES, SIGNATURE_BYTES, kind_of_file
from proxy.domain.usage import later_usage

SIGNATURE_BYTES_LIMIT = 1_048_576
"""Of one thought."""

_MAGIC_BASE64_BYTES = SIGNATURE_BYTES * 4 // 3
_image_type = re.compile(r"image/[A-Za-z0-9.+-]{1,64}", re.IGNORECASE)

EndReader = Callable[[Mapping[str, bytes], bool], ChatEnd | None]
"""Why the answer ended, by its notes and by whether anything came; None where the provider has not said."""

UsageReader = Callable[[bytes], Mapping[str, Any]]
"""The standard token counts in a provider's usage, which is a JSON object."""


@dataclass(frozen=True, slots=True)
class ChatReading:
    """How to read one kind of document.

    In its ``shape``, each element is a part of the answer: its payloads are named as in ``places``, its
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

    def __init__(
        self, reading: ChatReading, writer: ChatWriter, *, comes_as_events: bool, in_text: bool = True
    ) -> None:
        """Read one document, or a stream of them, and write with ``writer``.

        Images in text count where ``in_text``.
        """
        self.images = 0
        self.sizes: list[Size | None] = []
        self.usage: bytes | None = None
        self._reading = reading
        self._writer = writer
        self._is_stream = comes_as_events
        self._documents = DocumentReader(reading.shape, is_stream=comes_as_events)
        self._notes: dict[str, bytes] = {}
        self._is_done = False
        self._seen = SeenImages()
        self._payload = PayloadImages(self._seen)
        self._linked = CountedImages(self._seen)
        self._text = TextImages(is_wanted=in_text)
        self._has_content = self._failed = False
        self._in_part = self._is_alone = self._skipped = self._taking = self._begun = self._is_whole = False
        self._kind = ""
        self._media_type = b""
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._signature: bytearray | None = None
        self._in_signature = False

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
            self._text.end(self._linked)
            self._count()
            return self._writer.finish(end, self._usage())
        except ProxyError as error:
            return self._fail(error)

    @override
    def break_off(self) -> None:
        """An image whose last byte has come was made, whatever was to follow it."""
        with contextlib.suppress(MalformedResponse):
            if self._in_signature:
                self._signature = None
            is_text = self._kind == TEXT and bool(self._held)
            if self._in_part and (self._is_whole or is_text) and not self._skipped:
                self.end_element()
            self._count()

    @override
    def close(self) -> bytes | None:
        return self._writer.close(self._usage()) if self.images else None

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
        self._signature = None

    @override
    def end_element(self) -> None:
        self._in_part = self._is_alone = False
        before = self.images
        if not self._skipped and self._held:
            self._begin()
        self._count()
        if self._begun:
            self._writer.end(None if self._skipped else self._take_signature(), charged=self.images > before)
        elif not self._skipped:
            self._sign()

    @override
    def begin_payload(self, name: str) -> None:
        """Of two payloads of a part, the first one counts."""
        self._in_signature = name == SIGNATURE
        if self._in_signature:
            self._taking = False
            self._signature = bytearray()
            return
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
        if b"\n" in piece or b"\r" in piece:
            raise MalformedResponse("a string holds a line's end")
        if self._in_signature and self._signature is not None:
            self._signature += piece
            if len(self._signature) > SIGNATURE_BYTES_LIMIT:
                raise MalformedResponse("a thought's signature is too long")
        if not self._taking or not piece:
            return
        if self._kind != TEXT:
            self._payload.add(piece)
        if self._begun:
            self._write(piece)
            return
        if self._skipped:
            return
        self._held.append(piece)
        self._held_bytes += len(piece)
        if self._held_bytes > HELD_BYTES_LIMIT:
            self._begin()

    @override
    def end_payload(self) -> None:
        if self._in_signature:
            self._in_signature = False
            if not self._in_part:
                self._sign()
            return
        if self._taking:
            self._taking = False
            self._is_whole = self._kind != TEXT
        if self._is_alone:
            self.end_element()

    @override
    def note(self, name: str, value: bytes) -> None:
        """Raises the error that the provider reports."""
        if value == b"null":
            return
        if name == "error":
            if says_anything(value):
                raise self._reading.read_error(value)
            return
        if name == "usage":
            self.usage = later_usage(self.usage, object_of(value))
        elif self._in_part and name == "skip":
            # What has been passed on is delivered, and so it is charged.
            self._skipped = self._skipped or (value == b"true" and not self._begun)
        elif self._in_part and name == "media_type":
            self._media_type = _read_media_type(value)
        elif not self._in_part:
            self._notes[name] = value

    def _take_signature(self) -> bytes | None:
        """The one that is whole, where it says anything."""
        signature, self._signature = self._signature, None
        return bytes(signature) if signature else None

    def _sign(self) -> None:
        """A signature without a part is the message's."""
        signature = self._take_signature()
        if signature is not None:
            self._writer.sign(signature)

    def _begin(self) -> None:
        held, self._held = b"".join(self._held), []
        if self._kind == TEXT:
            self._writer.begin_text()
        else:
            place = read_place(held[:PREFIX_BYTES_LIMIT], is_base64=self._kind == BASE64)
            if place is None:
                self._skipped = True
                return
            is_bare = place.kind == b"b64_json" and not place.lead_bytes
            kind = self._media_type or _guess_media_type(held)
            self._writer.begin_image(b"data:%b;base64," % kind if is_bare else b"")
        self._begun = self._has_content = True
        self._write(held)

    def _write(self, piece: bytes) -> None:
        if self._kind == TEXT:
            self._text.add(piece, self._linked)
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
    begin = base64_prefix[: 2 * _MAGIC_BASE64_BYTES].replace(b"\\/", b"/")[:_MAGIC_BASE64_BYTES]
    try:
        return kind_of_file(None, b64decode(begin)).encode()
    except ValueError:
        return PLAIN_BYTES.encode()
