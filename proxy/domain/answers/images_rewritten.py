"""A provider's answer in a form of its own, on its way to a client that knows OpenAI's images.

What differs between providers is a ``Reading``: where in their documents the images are, and what their words mean. An
image is passed on while it arrives.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from typing_extensions import override

from proxy.domain.answers.answer import EVENT_STREAM, JSON, Answer, ErrorReader
from proxy.domain.answers.documents import DocumentListener, DocumentReader
from proxy.domain.answers.image_events import PARTIAL
from proxy.domain.answers.images_writing import ImagesJson, ImagesStream, ImagesWriter
from proxy.domain.catalog import IMAGES_LIMIT
from proxy.domain.errors import ProxyError
from proxy.domain.parsing.image_header import Size, SizeProbe, keep_size
from proxy.domain.parsing.json_shapes import Shape, object_of
from proxy.domain.parsing.json_tokens import MalformedResponse
from proxy.domain.requests.image import Task

PREFIX_BYTES_LIMIT = 256
"""How much of a string is looked at to see whether it is a ``data:`` address (RFC 2397)."""

DETAILS = ("revised_prompt", "media_type")
_data_url = re.compile(rb"data:([A-Za-z0-9.+-]+(?:\\?/[A-Za-z0-9.+-]+)?)?(?:;[^,;]{0,100})*?;base64,", re.IGNORECASE)


def read_data_url(begin: bytes) -> re.Match[bytes] | None:
    """The lead of a ``data:`` address in base64, whose first group is its media type; None for any other string."""
    # As far as the limit, however long the piece was that passed it.
    return _data_url.match(begin, 0, PREFIX_BYTES_LIMIT)


Refuser = Callable[[Mapping[str, bytes]], ProxyError | None]
"""The error for an answer in which no image was, by its notes; None where that is no error."""


@dataclass(frozen=True, slots=True)
class Reading:
    """How to read one kind of document.

    The ``shape`` names its payloads ``b64_json`` or ``url``, and notes what it can of ``revised_prompt``,
    ``media_type``, ``skip`` (true where an image is none to be counted), ``usage`` and ``error``. All else that
    is noted outside of elements is given to ``refuse``. Where ``kind``, or an event's name, ends in ``partial_image``,
    the image is none to be counted.
    """

    shape: Shape
    read_error: ErrorReader
    refuse: Refuser = lambda _notes: None


class Translation(Answer, DocumentListener):
    """Images in any form, written anew in the form that the client has asked for."""

    complete = False

    def __init__(self, reading: Reading, content_type: str, writer: ImagesWriter) -> None:
        """Read one document or, where ``content_type`` says so, a stream of them, and write with ``writer``."""
        self.images = 0
        self.sizes: list[Size | None] = []
        self._probe = SizeProbe()
        self.usage: bytes | None = None
        self._reading = reading
        self._writer = writer
        self._documents = DocumentReader(reading.shape, content_type)
        self._notes: dict[str, bytes] = {}
        self._error: ProxyError | None = None
        self._details: dict[str, bytes] = {}
        self._is_partial = self._in_element = self._skipped = self._written = self._counted = False
        self._prefix: bytes | None = None
        self._passing = False

    @property
    @override
    def content_type(self) -> str:
        return self._writer.content_type

    @property
    @override
    def whole(self) -> bool:
        """An error is raised in time."""
        return True

    @property
    @override
    def comment(self) -> bytes:
        return self._writer.comment

    @override
    def feed(self, piece: bytes) -> bytes:
        self._documents.feed(piece, self)
        self._raise_error()
        return self._writer.take()

    @override
    def finish(self) -> bytes:
        self._documents.finish(self)
        self._raise_error()
        if not self.images and (refusal := self._reading.refuse(self._notes)) is not None:
            raise refusal
        return self._writer.finish()

    @override
    def break_off(self) -> None:
        """Each image has been counted when it was whole."""

    @override
    def write_error(self, error: ProxyError) -> bytes | None:
        return self._writer.write_error(error)

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error

    @override
    def begin_document(self, name: bytes) -> None:
        self._is_partial = name.endswith(PARTIAL)

    @override
    def passed(self, piece: bytes) -> None:
        """It is all written anew."""

    @override
    def end_document(self, name: bytes) -> None: ...

    @override
    def end_of_stream(self) -> None: ...

    # --- Images ------------------------------------------------------------------------------------------------------

    @override
    def begin_element(self) -> None:
        self._details = {}
        self._in_element = True
        self._written = self._counted = False
        self._skipped = self._is_partial

    @override
    def end_element(self) -> None:
        self._in_element = False
        if self._written:
            details = {name: self._details[name] for name in DETAILS if name in self._details}
            self._writer.end(details, charged=self._counted)

    @override
    def begin_payload(self, name: str) -> None:
        """Of two payloads of an image, the first one counts."""
        self._passing = not (self._skipped or self._written)
        self._prefix = b"" if name == "url" else None

    @override
    def payload(self, piece: bytes) -> None:
        if not self._passing or not piece:
            return
        if self._prefix is not None:
            self._prefix += piece
            if len(self._prefix) < PREFIX_BYTES_LIMIT:
                return
            self._decide()
        elif self._written:
            self._writer.payload(piece)
            self._probe.add(piece)
        else:
            self._begin(b"b64_json", piece)

    @override
    def end_payload(self) -> None:
        if self._passing and self._prefix:
            self._decide()
        if self._passing and self._written:
            if self.images == IMAGES_LIMIT:
                raise MalformedResponse("there are too many images in the answer")
            self._counted = True
            self.images += 1
            keep_size(self.sizes, self._probe.size())

    def _decide(self) -> None:
        prefix, self._prefix = self._prefix or b"", None
        match = read_data_url(prefix)
        if match is None:
            self._begin(b"url", prefix)
            return
        if match[1]:
            self._details["media_type"] = b'"%b"' % match[1]
        if match.end() < len(prefix):
            self._begin(b"b64_json", prefix[match.end() :])

    def _begin(self, kind: bytes, piece: bytes) -> None:
        self._written = True
        self._writer.begin(kind)
        self._writer.payload(piece)
        self._probe.begin()
        self._probe.add(piece)

    @override
    def note(self, name: str, value: bytes) -> None:
        if value == b"null":
            return
        if name == "usage":
            self.usage = object_of(value) or self.usage
        elif name == "error":
            self._error = self._reading.read_error(value)
        elif self._in_element and name == "skip":
            self._skip(skipped=value == b"true")
        elif self._in_element and name == "kind":
            self._skip(skipped=value.endswith(b'partial_image"'))
        elif self._in_element:
            self._details[name] = _one_line(value)
        else:
            self._notes[name] = value

    def _skip(self, *, skipped: bool) -> None:
        self._skipped = self._skipped or skipped
        if self._skipped and self._counted:
            # What says so came after the image, which is on its way; it is not charged.
            self._counted = False
            self.images -= 1
            del self.sizes[self.images :]


def _one_line(value: bytes) -> bytes:
    """JSON without line ends, which a provider may have left in a string."""
    return value.translate(None, b"\r\n")


def translate(
    reading: Reading, content_type: str, *, stream: bool, created_s: int, task: Task = Task.GENERATION
) -> Translation:
    """An answer for a client that has asked for a ``stream`` or has not; ``created_s`` is now."""
    writer: ImagesWriter = ImagesStream(created_s, task.value.encode()) if stream else ImagesJson(created_s)
    return Translation(reading, content_type if content_type == EVENT_STREAM else JSON, writer)
