"""OpenAI's stream of images on its way to the client: event by event, each scrubbed and counted.

``image_generation.partial_image`` and ``.completed``, and the same of ``image_edit``, as in
https://platform.openai.com/docs/api-reference/images-streaming. An event of at most 64 KiB is held until it is whole,
and may still become an error; a larger one is passed on while it arrives.
"""

from __future__ import annotations

import orjson

from proxy.domain.answer import EVENT_STREAM, ErrorReader
from proxy.domain.catalog import IMAGES_LIMIT
from proxy.domain.errors import ProxyError, UpstreamTruncated
from proxy.domain.event_stream import DONE, KEEP_ALIVE, EventReader, begin_event, write_event
from proxy.domain.image_size import Size, SizeProbe, keep_size
from proxy.domain.json_shapes import PASSED, Shape, ShapedScanner, object_of, text_of
from proxy.domain.response_scanner import MalformedResponse

HELD_BYTES_LIMIT = 65_536
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
        b"usage": Shape(note="usage"),
        b"error": Shape(note="error"),
        b"message": Shape(note="message"),
        b"code": Shape(note="code"),
    },
)


def error_event(error: ProxyError) -> bytes:
    """An error in a stream, as OpenAI's SDKs know it."""
    return write_event(orjson.dumps({"type": "error", **error.body()}), b"error")


class EventHolder:
    """Holds one event while it is small, and the last line end of an event that was charged for.

    So a client has an image only when it has been charged: whoever ends the answer settles before.
    """

    __slots__ = ("_event", "_event_bytes", "_kept", "_out", "begun")

    def __init__(self) -> None:
        """Start before the first event."""
        self._out: list[bytes] = []
        self._event: list[bytes] = []
        self._event_bytes = 0
        self._kept = b""
        self.begun = False

    def write(self, piece: bytes) -> None:
        """More of the event; past 64 KiB it is on its way."""
        if self.begun:
            self._out.append(piece)
            return
        self._event.append(piece)
        self._event_bytes += len(piece)
        if self._event_bytes > HELD_BYTES_LIMIT:
            self._begin()

    def end(self, *, charged: bool) -> None:
        """The event is whole."""
        if not self.begun:
            self._begin()
        self._out.append(b"\n" if charged else b"\n\n")
        self._kept = b"\n" if charged else b""
        self.begun = False

    def drop(self) -> None:
        """Send nothing of an event that is still held."""
        self._event, self._event_bytes = [], 0

    def insert(self, event: bytes) -> None:
        """An event of our own, between two others."""
        self._out += self._kept, event
        self._kept = b""

    def take(self) -> bytes:
        """What may be sent."""
        out, self._out = self._out, []
        return b"".join(out)

    def take_last(self) -> bytes:
        """What is left at the end."""
        self.insert(b"")
        return self.take()

    def _begin(self) -> None:
        self._out += self._kept, *self._event
        self._kept = b""
        self.drop()
        self.begun = True


class ImageEvents:
    """See ``Answer``, and ``EventListener`` and ``ShapeListener`` for what it hears."""

    content_type = EVENT_STREAM
    complete = False

    def __init__(self, read_error: ErrorReader) -> None:
        """Start before the first byte; ``read_error`` reads what the provider says of an error."""
        self.images = 0
        self.sizes: list[Size | None] = []
        self._probe = SizeProbe()
        self.usage: bytes | None = None
        self._read_error = read_error
        self._reader = EventReader(self)
        self._holder = EventHolder()
        self._scanner: ShapedScanner | None = None
        self._word: bytes | None = None
        self._notes: dict[str, bytes] = {}
        self._has_payload = False
        self._failed = False
        self._awaits_completed = False

    @property
    def whole(self) -> bool:
        """Whether no error came, and no image was begun and left unfinished after others."""
        return not self._failed and not (self._awaits_completed and self.images)

    @property
    def comment(self) -> bytes:
        """A comment, but not within an event."""
        return b"" if self._holder.begun else KEEP_ALIVE

    def feed(self, piece: bytes) -> bytes:
        """See ``Answer``."""
        self._reader.feed(piece)
        return self._holder.take()

    def finish(self) -> bytes:
        """See ``Answer``. A stream that ends before its image does is told so."""
        self._reader.finish()
        if self._awaits_completed and not self._failed:
            self._holder.insert(
                error_event(UpstreamTruncated("The provider's stream ended before its image was complete."))
            )
        return self._holder.take_last()

    def break_off(self) -> None:
        """See ``Answer``; each event has been counted when it ended."""

    def tell(self, error: ProxyError) -> bytes | None:
        """See ``Answer``."""
        if self._holder.begun:
            return None
        self._holder.drop()
        self._holder.insert(b"" if self._failed else error_event(error))
        return self._holder.take()

    # --- Events ------------------------------------------------------------------------------------------------------

    def data(self, piece: bytes, name: bytes) -> None:
        """See ``EventListener``."""
        if self._failed:
            return
        # A line's end between two lines of JSON is a blank; it must not end a line of ours.
        piece = b" " if piece == b"\n" else piece
        if self._scanner is None:
            piece = (self._word or b"") + piece
            if DONE.startswith(piece):
                self._word = piece
                return
            self._word = None
            self._scanner = self._make_scanner()
            self._holder.write(begin_event(name if name in PICTURE_EVENTS else b""))
        self._holder.write(self._scanner.feed(piece))

    def end_event(self, name: bytes) -> None:
        """See ``EventListener``."""
        word, self._word = self._word, None
        scanner, self._scanner = self._scanner, None
        notes, self._notes = self._notes, {}
        has_payload, self._has_payload = self._has_payload, False
        if self._failed:
            self._holder.drop()
        elif word == DONE:
            self._end_of_stream()
        elif scanner is None:
            # An event without a word says nothing.
            return
        else:
            self._holder.write(scanner.finish())
            self._end_document(text_of(notes.get("type")).encode() or name, notes, has_payload=has_payload)

    def _make_scanner(self) -> ShapedScanner:
        return ShapedScanner(EVENT_SHAPE, self)

    def _end_of_stream(self) -> None:
        self._holder.insert(write_event(DONE))

    def _end_document(self, kind: bytes, notes: dict[str, bytes], *, has_payload: bool) -> None:
        if kind == b"error" or "error" in notes:
            self._fail(notes)
            return
        is_partial = kind.endswith(PARTIAL)
        charged = has_payload and not is_partial
        if charged:
            if self.images == IMAGES_LIMIT:
                raise MalformedResponse("there are too many images in the answer")
            self.images += 1
            keep_size(self.sizes, self._probe.size())
        if has_payload:
            self._awaits_completed = is_partial
        self._holder.end(charged=charged)

    def _fail(self, notes: dict[str, bytes]) -> None:
        if self._holder.begun:
            self._holder.end(charged=False)
        self._holder.drop()
        report = notes.get("error", b"null")
        if report[:1] != b"{":
            # OpenAI tells some errors in the event itself.
            words = {name: orjson.Fragment(notes[name]) for name in ("message", "code") if name in notes}
            report = orjson.dumps(words) if words else report
        self._failed = True
        self._holder.insert(error_event(self._read_error(report)))

    # --- What an event holds -----------------------------------------------------------------------------------------

    def begin_picture(self) -> None:
        """See ``ShapeListener``."""

    def end_picture(self) -> None:
        """See ``ShapeListener``."""

    def begin_payload(self, _name: str) -> None:
        """See ``ShapeListener``."""
        self._probe.begin()

    def payload(self, piece: bytes) -> None:
        """See ``ShapeListener``."""
        if piece:
            self._has_payload = True
            self._probe.add(piece)

    def end_payload(self) -> None:
        """See ``ShapeListener``."""

    def note(self, name: str, value: bytes) -> None:
        """See ``ShapeListener``."""
        if name == "usage":
            self.usage = object_of(value) or self.usage
        elif value != b"null":
            self._notes[name] = value
