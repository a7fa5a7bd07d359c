"""What may stand where in a provider's document: which members pass, which are noted, and which hold an image.

A ``Shape`` says it for one place and, by its members and items, for all below. ``ShapedScanner`` reads a document in
pieces, returns what passes, and tells its listener of payloads and notes. What no shape is given for is dropped.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

import orjson

from proxy.domain.image_addresses import read_lead
from proxy.domain.json_reader import OPEN_OBJECT, JsonReader, JsonWriter

NOTE_BYTES_LIMIT = 16_384
URL: Final = "url"
"""The payload that is an address. Where it is no image's, it is left out, and nobody is told of it."""


@dataclass(frozen=True, slots=True, eq=False)
class Shape:
    """One place of a document.

    ``passes``: what stands there is written, of objects and arrays those ``members`` and ``items`` that have a shape.
    ``whole``: all of it is written, whatever it is. ``payload`` and ``note`` name a string that is an image, and a
    value that the listener is given as JSON. ``constant`` names what is written in the place of a value, ``renamed``
    what a member is called where it is written. ``picture``: an object here is one image, with what is noted of it.
    """

    passes: bool = False
    whole: bool = False
    members: Mapping[bytes, Shape] = field(default_factory=dict)
    items: Shape | None = None
    payload: str = ""
    note: str = ""
    constant: str = ""
    renamed: bytes = b""
    picture: bool = False


DROPPED = Shape()
PASSED = Shape(passes=True)
WHOLE = Shape(passes=True, whole=True)


class ShapeListener(Protocol):
    """Who hears of what a document holds."""

    def begin_picture(self) -> None:
        """An object that is one image begins."""
        ...

    def end_picture(self) -> None:
        """It ends."""
        ...

    def begin_payload(self, name: str) -> None:
        """An image's string begins; ``name`` is the shape's."""
        ...

    def payload(self, piece: bytes) -> None:
        """More of it, as JSON has it."""
        ...

    def end_payload(self) -> None:
        """It is whole."""
        ...

    def note(self, name: str, value: bytes) -> None:
        """A value of at most 16 KiB, as JSON; larger ones are not told."""
        ...


def text_of(note: bytes | None) -> str:
    """What a note of a string says; nothing where it is none."""
    try:
        text = orjson.loads(note or b"null")
    except orjson.JSONDecodeError:
        return ""
    return text if isinstance(text, str) else ""


def object_of(note: bytes) -> bytes | None:
    """A note that is an object, to be written into other JSON; None where its strings are not valid (RFC 8259)."""
    try:
        return note if isinstance(orjson.loads(note), dict) else None
    except orjson.JSONDecodeError:
        return None


@dataclass(slots=True)
class _Frame:
    """An object or an array that has begun; ``note`` where its end is the end of what is captured under that name."""

    shape: Shape
    passing: bool
    is_object: bool
    note: str
    picture: bool


class ShapedScanner:
    """Feed it one document as it comes; pass on what it returns; then ``finish``."""

    __slots__ = (
        "_captured", "_captured_bytes", "_constants", "_frames", "_held", "_listener", "_name", "_note", "_passing",
        "_payload", "_reader", "_root", "_shape", "_spelling", "_writer",
    )  # fmt: skip

    def __init__(self, shape: Shape, listener: ShapeListener, constants: Mapping[str, bytes] | None = None) -> None:
        """Read a document of this shape; ``constants`` are JSON values, by the names that shapes have for them."""
        self._root = shape
        self._listener = listener
        self._constants = constants or {}
        self._reader = JsonReader(self)
        self._writer = JsonWriter()
        self._frames: list[_Frame] = []
        self._spelling = self._name = b""
        self._passing = False
        self._payload = self._note = ""
        self._shape = shape
        # The beginning of an address that is still to be judged.
        self._held: bytes | None = None
        self._captured: JsonWriter | None = None
        self._captured_bytes = 0

    @property
    def complete(self) -> bool:
        """Whether the document is whole."""
        return self._reader.complete

    def feed(self, chunk: bytes) -> bytes:
        """Take the next piece; return what of it passes. Raises MalformedResponse."""
        self._reader.feed(chunk)
        return self._writer.take()

    def finish(self) -> bytes:
        """The document has ended. Raises MalformedResponse where it is not whole."""
        self._reader.finish()
        return self._writer.take()

    # --- What the reader tells ---------------------------------------------------------------------------------------

    def begin(self, mark: int) -> None:
        """See ``JsonSink``."""
        shape = self._place()
        is_object = mark == OPEN_OBJECT
        fits = shape.whole or (bool(shape.members) if is_object else shape.items is not None)
        passing = shape.passes and fits and self._parent_passes()
        note = self._begin_value(shape, passing=passing)
        if passing:
            self._writer.begin(mark)
        if captured := self._captures(1):
            captured.begin(mark)
        picture = shape.picture and is_object
        if picture:
            self._listener.begin_picture()
        self._frames.append(_Frame(shape if fits else DROPPED, passing, is_object, note, picture))

    def end(self, mark: int) -> None:
        """See ``JsonSink``."""
        frame = self._frames.pop()
        if frame.passing:
            self._writer.end(mark)
        if self._captured is not None:
            self._captured.end(mark)
        if frame.picture:
            self._listener.end_picture()
        if frame.note:
            self._end_note(frame.note)

    def name(self, spelling: bytes, name: bytes) -> None:
        """See ``JsonSink``."""
        self._spelling, self._name = spelling, name
        if captured := self._captures(len(spelling)):
            captured.name(spelling)

    def literal(self, text: bytes) -> None:
        """See ``JsonSink``."""
        shape = self._place()
        passing = shape.passes and self._parent_passes()
        note = self._begin_value(shape, passing=passing)
        if passing:
            self._writer.literal(self._constants.get(shape.constant, text))
        if captured := self._captures(len(text)):
            captured.literal(text)
        if note:
            self._end_note(note)

    def begin_string(self) -> None:
        """See ``JsonSink``."""
        self._shape = shape = self._place()
        self._passing = shape.passes and self._parent_passes()
        self._note = self._begin_note(shape)
        self._payload = ""
        if captured := self._captures(1):
            captured.begin_string()
        if shape.payload == URL:
            self._held = b""
        else:
            self._write_beginning()

    def _write_beginning(self) -> None:
        shape = self._shape
        if self._passing:
            self._write_name(shape)
            if shape.constant:
                self._writer.literal(self._constants[shape.constant])
                self._passing = False
            else:
                self._writer.begin_string()
        if shape.payload:
            self._payload = shape.payload
            self._listener.begin_payload(shape.payload)

    def string(self, piece: bytes) -> None:
        """See ``JsonSink``."""
        if captured := self._captures(len(piece)):
            captured.string(piece)
        if self._held is None:
            self._write_more(piece)
            return
        begin = self._held + piece
        is_address = read_lead(begin)
        self._held = begin if is_address is None else None
        if is_address:
            self._write_beginning()
            self._write_more(begin)
        elif is_address is False:
            self._passing = False

    def _write_more(self, piece: bytes) -> None:
        if self._passing:
            self._writer.string(piece)
        if self._payload:
            self._listener.payload(piece)

    def end_string(self) -> None:
        """See ``JsonSink``."""
        if self._held is not None:
            self._held = None
            self._passing = False
        if self._passing:
            self._writer.end_string()
        if self._captured is not None:
            self._captured.end_string()
        if self._payload:
            self._listener.end_payload()
        if self._note:
            self._end_note(self._note)

    # --- Where it stands ---------------------------------------------------------------------------------------------

    def _place(self) -> Shape:
        if not self._frames:
            return self._root
        frame = self._frames[-1]
        if frame.shape.whole:
            return WHOLE
        if frame.is_object:
            return frame.shape.members.get(self._name, DROPPED)
        return frame.shape.items or DROPPED

    def _parent_passes(self) -> bool:
        return not self._frames or self._frames[-1].passing

    def _begin_value(self, shape: Shape, *, passing: bool) -> str:
        if passing:
            self._write_name(shape)
        return self._begin_note(shape)

    def _write_name(self, shape: Shape) -> None:
        """Where it has one."""
        if self._frames and self._frames[-1].is_object:
            self._writer.name(shape.renamed or self._spelling)

    def _begin_note(self, shape: Shape) -> str:
        """Begin the note that is wanted, and return its name."""
        if not shape.note or self._captured is not None:
            return ""
        self._captured, self._captured_bytes = JsonWriter(), 0
        return shape.note

    def _captures(self, count: int) -> JsonWriter | None:
        """Where a token of ``count`` bytes is captured. The sum depends on the document, not on how it is cut."""
        if self._captured is not None:
            self._captured_bytes += count
            if self._captured_bytes > NOTE_BYTES_LIMIT:
                self._captured = None
        return self._captured

    def _end_note(self, name: str) -> None:
        captured, self._captured = self._captured, None
        if captured is not None:
            self._listener.note(name, captured.take())
