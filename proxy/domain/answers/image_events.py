"""OpenAI's stream of images on its way to the client: event by event, each scrubbed and counted.

``image_generation.partial_image`` and ``.completed``, and the same of ``image_edit``, as in
https://platform.openai.com/docs/api-reference/images-streaming. An event of at most 64 KiB is held until it is whole,
and may still become an error; a larger one is passed on while it arrives.
"""

from __future__ import annotations

import orjson
from typing_extensions import override

from proxy.domain.answers.answer import EVENT_STREAM, Answer, ErrorReader
from proxy.domain.answers.documents import DocumentListener, DocumentReader
from proxy.domain.answers.holder import EventHolder, error_event
from proxy.domain.catalog import IMAGES_LIMIT
from proxy.domain.errors import ProxyError, UpstreamTruncated
from proxy.domain.parsing.image_header import Size, SizeProbe, keep_size
from proxy.domain.parsing.json_shapes import PASSED, Shape, object_of, text_of
from proxy.domain.parsing.json_tokens import MalformedResponse
from proxy.domain.parsing.server_sent_events import DONE, begin_event, write_event

PARTIAL = b"partial_image"
PICTURE_EVENTS = frozenset(
    b"%b.%b" % (kind, what) for kind in (b"image_generation", b"image_edit") for what in (PARTIAL, b"completed")
)
_PASSED_ON = (
    b"partial_image_index", b"created_at", b"background", b"output_format", b"quality", b"size", b"revised_prompt",
    b"media_type",
)  # fmt: skip
EVENT_SHAPE = Shape(
    passes=True,
    members={
        **dict.fromkeys(_PASSED_ON, PASSED),
        b"type": Shape(passes=True, note="type"),
        b"b64_json": Shape(passes=True, payload="b64_json"),
        b"url": Shape(passes=True, payload="url"),
        b"usage": Shape(note="usage", optional=True),
        b"error": Shape(note="error"),
        b"message": Shape(note="message"),
        b"code": Shape(note="code"),
    },
)


class ImageEvents(Answer, DocumentListener):
    """OpenAI's events for a client that has asked for events: passed on without what is not for clients."""

    content_type = EVENT_STREAM
    complete = False

    def __init__(self, read_error: ErrorReader, documents: DocumentReader | None = None) -> None:
        """Start before the first byte; ``read_error`` reads what the provider says of an error."""
        self.images = 0
        self.sizes: list[Size | None] = []
        self._probe = SizeProbe()
        self.usage: bytes | None = None
        self._read_error = read_error
        self._documents = documents or DocumentReader(EVENT_SHAPE, EVENT_STREAM)
        self._holder = EventHolder()
        self._notes: dict[str, bytes] = {}
        self._has_payload = False
        self._failed = False
        self._awaits_completed = False

    @property
    def whole(self) -> bool:
        """Whether no error came, and no image was begun and left unfinished after others."""
        return not self._failed and not (self._awaits_completed and self.images)

    @property
    @override
    def comment(self) -> bytes:
        return self._holder.comment

    @override
    def feed(self, piece: bytes) -> bytes:
        self._documents.feed(piece, self)
        return self._holder.take()

    @override
    def finish(self) -> bytes:
        """A stream that ends before its image does ends with an error."""
        self._documents.finish(self)
        if self._awaits_completed and not self._failed:
            self._holder.insert(
                error_event(UpstreamTruncated("The provider's stream ended before its image was complete."))
            )
        return self._holder.take_last()

    @override
    def break_off(self) -> None:
        """Each event has been counted when it ended."""

    @override
    def write_error(self, error: ProxyError) -> bytes | None:
        return self._holder.take_last() if self._failed else self._holder.write_error(error)

    # --- Events ------------------------------------------------------------------------------------------------------

    @override
    def begin_document(self, name: bytes) -> None:
        self._notes = {}
        self._has_payload = False
        self._holder.write(begin_event(name if name in PICTURE_EVENTS else b""))

    @override
    def passed(self, piece: bytes) -> None:
        self._holder.write(piece)

    @override
    def end_of_stream(self) -> None:
        self._holder.insert(write_event(DONE))

    @override
    def end_document(self, name: bytes) -> None:
        notes = self._notes
        kind = text_of(notes.get("type")).encode() or name
        if kind == b"error" or "error" in notes:
            self._fail(notes)
        else:
            self._end_image(kind)

    def _end_image(self, kind: bytes) -> None:
        is_partial = kind.endswith(PARTIAL)
        charged = self._has_payload and not is_partial
        if charged:
            if self.images == IMAGES_LIMIT:
                raise MalformedResponse("there are too many images in the answer")
            self.images += 1
            keep_size(self.sizes, self._probe.size())
        if self._has_payload:
            self._awaits_completed = is_partial
        self._holder.end(charged=charged)

    def _fail(self, notes: dict[str, bytes]) -> None:
        if self._holder.begun:
            self._holder.end(charged=False)
        self._holder.drop()
        report = notes.get("error", b"null")
        if report[:1] != b"{":
            # OpenAI reports some errors in the event itself.
            words = {name: orjson.Fragment(notes[name]) for name in ("message", "code") if name in notes}
            report = orjson.dumps(words) if words else report
        self._failed = True
        self._documents.stop()
        self._holder.insert(error_event(self._read_error(report)))

    # --- What an event holds -----------------------------------------------------------------------------------------

    @override
    def begin_element(self) -> None: ...

    @override
    def end_element(self) -> None: ...

    @override
    def begin_payload(self, _name: str) -> None:
        self._probe.begin()

    @override
    def payload(self, piece: bytes) -> None:
        if piece:
            self._has_payload = True
            self._probe.add(piece)

    @override
    def end_payload(self) -> None: ...

    @override
    def note(self, name: str, value: bytes) -> None:
        if name == "usage":
            self.usage = object_of(value) or self.usage
        elif value != b"null":
            self._notes[name] = value
