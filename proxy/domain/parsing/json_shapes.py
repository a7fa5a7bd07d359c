"""What may stand where in a provider's document: which members pass, which are noted, and which hold an image.

A ``Shape`` says it for one place and, by its members and items, for all below. ``ShapedScanner`` reads a document in
pieces, returns what passes, and calls its listener with payloads and notes. What no shape is given for is dropped.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final, Protocol

import orjson

from proxy.domain.parsing.image_addresses import begins_an_image, read_lead
from proxy.domain.parsing.json_tokens import CLOSE_ARRAY, CLOSE_OBJECT, OPEN_OBJECT, JsonReader, JsonWriter

NOTE_BYTES_LIMIT = 16_384
ESCAPE_BYTES_LIMIT = 12
URL: Final = "url"
"""The payload that is an address. Where it is no image's, and no image in base64, it is left out without
a word."""


@dataclass(frozen=True, slots=True, eq=False)
class Shape:
    """One place of a document.

    ``passes``: what stands there is written, of objects and arrays those ``members`` and ``items`` that have a shape.
    ``whole``: all of it is written, whatever it is. ``payload`` and ``note`` name a string that is an image, and a
    value that the listener is given as JSON. ``constant`` names what is written in the place of a value, ``renamed``
    what a member is called where it is written. ``element``: an object here is one thing, with what is
    noted of it: an image, a choice or a part of an answer.
    ``mark`` is a note, always true, that something stands here. ``optional``: a note of an object or an
    array that is no JSON is left out; any other makes the document malformed. ``leads``: the members that stand first
    in this object, each with the constant that is its value.
    """

    passes: bool = False
    whole: bool = False
    members: Mapping[bytes, Shape] = field(default_factory=dict)
    items: Shape | None = None
    payload: str = ""
    note: str = ""
    constant: str = ""
    renamed: bytes = b""
    element: bool = False
    mark: str = ""
    optional: bool = False
    leads: tuple[bytes, ...] = ()


DROPPED = Shape()
PASSED = Shape(passes=True)
WHOLE = Shape(passes=True, whole=True)


class ShapeListener(Protocol):
    """Who hears of what a document holds."""

    __slots__ = ()

    def begin_element(self) -> None:
        """An object that is one element begins."""
        ...

    def end_element(self) -> None:
        """It ends."""
        ...

    def begin_payload(self, name: str) -> None:
        """A string with a payload begins; ``name`` is the shape's."""
        ...

    def payload(self, piece: bytes) -> None:
        """More of it, as JSON has it."""
        ...

    def end_payload(self) -> None:
        """It is whole."""
        ...

    def note(self, name: str, value: bytes) -> None:
        """A value of at most 16 KiB, as JSON; larger ones are left out."""
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


_SAYS_NOTHING: Final = frozenset({"", "0", "none", "null", "ok", "success", "false"})


def says_anything(note: bytes) -> bool:
    """Whether a note is more than a null, a zero, an empty text, or an object or array of these.

    Many write ``"error": {}`` or ``"error": ""`` beside what they have made.
    """
    try:
        rest = [orjson.loads(note)]
    except orjson.JSONDecodeError:
        return True
    while rest:
        value = rest.pop()
        if isinstance(value, dict):
            rest += value.values()
        elif isinstance(value, list):
            rest += value
        elif value if not isinstance(value, str) else value.strip().lower() not in _SAYS_NOTHING:
            return True
    return False


@dataclass(slots=True)
class _Frame:
    """An object or an array that has begun; ``note`` where its end is the end of what is captured under that name."""

    shape: Shape
    passing: bool
    is_object: bool
    note: str
    element: bool


class ShapedScanner(JsonReader):
    """Feed it one document as it comes; pass on what it returns; then ``finish``."""

    __slots__ = (
        "_captured", "_captured_bytes", "_constants", "_filled_depth", "_frames", "_held", "_listener", "_member",
        "_note", "_passing", "_payload", "_root", "_shape", "_skipped_note", "_spelling", "_writer",
    )  # fmt: skip

    _listener: ShapeListener

    def __init__(self, shape: Shape, constants: Mapping[str, bytes] | None = None) -> None:
        """Read a document of this shape; ``constants`` are JSON values, by the names that shapes have for them."""
        super().__init__()
        self._root = shape
        self._constants = constants or {}
        self._writer = JsonWriter()
        self._frames: list[_Frame] = []
        # So many of them, from the outermost on, have the last payload in them.
        self._filled_depth = 0
        self._spelling = self._member = b""
        self._passing = False
        self._payload = self._note = self._skipped_note = ""
        self._shape = shape
        # The beginning of an address that is still to be judged.
        self._held: bytes | None = None
        self._captured: JsonWriter | None = None
        self._captured_bytes = 0

    def feed(self, chunk: bytes, listener: ShapeListener) -> bytes:
        """Take the next piece; return what of it passes. Raises MalformedResponse, and what ``listener`` does.

        The listener is known for no longer than that: most hold their scanner, and two that hold one another would
        stay until the garbage collector comes.
        """
        self._listener = listener
        try:
            self.read(chunk)
        finally:
            del self._listener
        return self._writer.take()

    def is_payload(self, chunk: bytes) -> bool:
        """Whether all of ``chunk`` is more of a payload, and nothing else; it need not be fed then."""
        if not self._payload or self._passing or self._held is not None or self._captured is not None:
            return False
        return self.is_within_string(chunk)

    def finish(self, listener: ShapeListener) -> bytes:
        """The document has ended. Raises MalformedResponse where it is not whole."""
        self._listener = listener
        try:
            self.read_end()
        finally:
            del self._listener
        return self._writer.take()

    def close(self, members: Mapping[bytes, bytes]) -> bytes | None:
        """The end of a document that breaks off here, with what has passed but was not returned; it is read no more.

        ``members`` are added to each element that has begun. None within a string that passes, within an item of a list
        whose payload has not come, and within what passes whole.
        """
        if self.in_string and self._passing and self._held is None:
            return None
        open_frames = [frame for frame in self._frames if frame.passing]
        for outer, frame in pairwise(open_frames[max(self._filled_depth - 1, 0) :]):
            if frame.shape.whole or (frame.is_object and not outer.is_object and not frame.element):
                return None
        for frame in reversed(open_frames):
            for name, value in members.items() if frame.element else ():
                self._writer.name(name)
                self._writer.literal(value)
            self._writer.end(CLOSE_OBJECT if frame.is_object else CLOSE_ARRAY)
        return self._writer.take()

    # --- The tokens, see JsonReader ----------------------------------------------------------------------------------

    def begin(self, mark: int) -> bool:
        """Skip what nobody wants: it neither passes, nor is it noted, nor is there a place in it."""
        is_object = mark == OPEN_OBJECT
        shape = self._place()
        fits = shape.whole or (bool(shape.members) if is_object else shape.items is not None)
        passing = shape.passes and fits and self._parent_passes()
        note = self._begin_value(shape, passing=passing)
        if not fits and (self._captured is None or (note and shape.optional)):
            self._skipped_note = note
            return False
        if passing:
            self._writer.begin(mark)
            for name in shape.leads if is_object else ():
                self._writer.name(name)
                self._writer.literal(self._constants[name.decode()])
        if captured := self._captures(1):
            captured.begin(mark)
        element = shape.element and is_object
        if element:
            self._listener.begin_element()
        self._frames.append(_Frame(shape if fits else DROPPED, passing, is_object, note, element))
        return True

    def end(self, mark: int) -> None:
        """Leave its frame."""
        frame = self._frames.pop()
        self._filled_depth = min(self._filled_depth, len(self._frames))
        if frame.passing:
            self._writer.end(mark)
        if self._captured is not None:
            self._captured.end(mark)
        if frame.element:
            self._listener.end_element()
        if frame.note:
            self._end_note(frame.note)

    def skipped(self, data: bytes, at: int, end: int) -> None:
        """Keep what is noted if it can be."""
        if captured := self._captures(end - at):
            captured.string(data[at:end])

    def end_skipped(self) -> None:
        """What is noted if it can be has to be JSON."""
        captured, self._captured = self._captured, None
        if captured is None:
            return
        note = captured.take()
        try:
            orjson.loads(note)
        except orjson.JSONDecodeError:
            return
        self._listener.note(self._skipped_note, note)

    def name(self, spelling: bytes, name: bytes) -> None:
        """Remember where the next value stands."""
        self._spelling, self._member = spelling, name
        if captured := self._captures(len(spelling)):
            captured.name(spelling)

    def literal(self, text: bytes) -> None:
        """Write it, or a constant in its place."""
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
        """Write its beginning, unless it is an address that is still to be judged."""
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
        """Write it, once it is known to pass."""
        if captured := self._captures(len(piece)):
            captured.string(piece)
        if self._held is None:
            self._write_more(piece)
            return
        begin = self._held + piece
        is_address = read_lead(begin)
        if is_address is False and begins_an_image(begin):
            is_address = True
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
        """What is too short for an address is none."""
        if self._held is not None:
            self._held = None
            self._passing = False
        if self._passing:
            self._writer.end_string()
        if self._captured is not None:
            self._captured.end_string()
        if self._payload:
            self._filled_depth = len(self._frames)
            self._listener.end_payload()
        if self._note:
            self._end_note(self._note)

    # --- Where it stands ---------------------------------------------------------------------------------------------

    def _place(self) -> Shape:
        """The shape of where a value begins."""
        if not self._frames:
            shape = self._root
        else:
            frame = self._frames[-1]
            if frame.shape.whole:
                return WHOLE
            shape = (frame.shape.members.get(self._member) if frame.is_object else frame.shape.items) or DROPPED
        if shape.mark:
            self._listener.note(shape.mark, b"true")
        return shape

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


def whole_escapes(text: bytes, limit_bytes: int) -> bytes:
    """Text as JSON has it, of at most ``limit_bytes`` bytes, without an escape that its end was cut off."""
    escape = text.rfind(b"\\", max(0, len(text) - ESCAPE_BYTES_LIMIT))
    return text if escape < 0 or len(text) < limit_bytes else text[:escape]


def one_line(value: bytes) -> bytes:
    """JSON without line ends, which a provider may have left in a string."""
    return value.translate(None, b"\r\n")
