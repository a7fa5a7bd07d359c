"""A provider's answer read by its shape: one JSON document, or events each of which holds one.

What is no JSON says nothing: signs of life between the events, as some send them, and whatever follows a document that
is whole. Another document may follow it as well, in one event or in a body of several lines.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from typing_extensions import override

from proxy.domain.parsing.json_shapes import Shape, ShapedScanner, ShapeListener
from proxy.domain.parsing.json_tokens import MalformedResponse
from proxy.domain.parsing.server_sent_events import DONE, EventListener, EventReader

_BLANKS = b" \t\r\n"
_LEAD = b"data:"
"""What some write twice."""

_OPENING = (b"{", b"[")


class DocumentListener(ShapeListener, Protocol):
    """Who hears of the documents, and of what each of them holds."""

    __slots__ = ()

    def begin_document(self, name: bytes) -> None:
        """A document begins; ``name`` is that of its event, where it is in one."""
        ...

    def passed(self, piece: bytes) -> None:
        """More of what passes of it."""
        ...

    def end_document(self, name: bytes) -> None:
        """It is whole."""
        ...

    def end_of_stream(self) -> None:
        """The word came by which OpenAI's streams end."""
        ...


class DocumentReader(EventListener):
    """Feed it the body as it comes. See ``EventListener`` for what it hears itself."""

    __slots__ = (
        "_constants", "_documents", "_events", "_has_skipped", "_is_stopped", "_listener", "_scanner", "_shape",
        "_word",
    )  # fmt: skip

    _listener: DocumentListener

    def __init__(self, shape: Shape, *, is_stream: bool, constants: Mapping[str, bytes] | None = None) -> None:
        """One document of this ``shape``, or a stream of them; see ``ShapedScanner`` for its ``constants``."""
        self._shape = shape
        self._constants = constants
        self._events = EventReader() if is_stream else None
        self._scanner: ShapedScanner | None = None
        self._documents = 0
        # What has come of an event, or after a document, as long as it may be the beginning of anything.
        self._word = b""
        self._has_skipped = False
        self._is_stopped = False

    def feed(self, piece: bytes, listener: DocumentListener) -> None:
        """Take the next piece of the body. Raises MalformedResponse, and what ``listener`` does."""
        if self._is_payload(piece):
            listener.payload(piece)
            return
        self._listener = listener
        try:
            if self._events is not None:
                self._events.feed(piece, self)
            elif piece:
                self._read(piece, b"")
        finally:
            del self._listener

    def finish(self, listener: DocumentListener) -> None:
        """The body has ended. Raises MalformedResponse where a document has not, or where there was none."""
        self._listener = listener
        try:
            if self._events is not None:
                self._events.finish(self)
            elif self._scanner is not None:
                self._end_document(b"")
            if not self._documents and (self._events is None or self._has_skipped):
                raise MalformedResponse("the answer holds no JSON")
        finally:
            del self._listener

    def stop(self) -> None:
        """Read nothing more: whatever follows says nothing."""
        self._is_stopped = True

    @override
    def data(self, piece: bytes, name: bytes) -> None:
        if piece == b"\n":
            # Between two lines of JSON, it is a blank; after a document, another line may hold another one.
            self._end_line(name)
        else:
            self._read(piece, name)

    @override
    def end_event(self, name: bytes) -> None:
        if self._scanner is not None:
            self._end_document(name)
        self._end_line(name)

    def _end_line(self, name: bytes) -> None:
        if self._scanner is None:
            word, self._word = self._word.rstrip(_BLANKS), b""
            if word == DONE and not self._is_stopped:
                self._listener.end_of_stream()
        elif self._scanner.complete:
            self._end_document(name)
        else:
            self._read(b" ", name)

    def _is_payload(self, piece: bytes) -> bool:
        """Whether all of ``piece`` is more of a payload, and nothing else: the scanner would find out the same."""
        if self._scanner is None or self._is_stopped or not (self._events is None or self._events.is_in_data):
            return False
        # What is a payload's, as it stands, holds no line's end.
        return self._scanner.is_payload(piece)

    def _read(self, piece: bytes, name: bytes) -> None:
        while piece and not self._is_stopped:
            if self._scanner is None:
                piece = self._find_document(piece)
                if not piece:
                    return
                self._scanner = ShapedScanner(self._shape, self._constants)
                self._listener.begin_document(name)
            passed = self._scanner.feed(piece, self._listener)
            if passed:
                self._listener.passed(passed)
            piece = self._scanner.rest
            if piece:
                self._end_document(name)

    def _find_document(self, piece: bytes) -> bytes:
        """What a document begins with; nothing before one has."""
        if not self._documents and self._events is None:
            return piece
        said = (self._word + piece).lstrip(_BLANKS)
        while said.startswith(_LEAD):
            said = said[len(_LEAD) :].lstrip(_BLANKS)
        if said.startswith(_OPENING) and not DONE.startswith(said[: len(DONE)]):
            self._word = b""
            return said
        # Bounded, for the blanks after a word that is whole are those after it.
        may_be_word = DONE.startswith(said.rstrip(_BLANKS)) or _LEAD.startswith(said)
        self._has_skipped = self._has_skipped or not may_be_word
        self._word = said[: len(DONE) + 1] if may_be_word else b"-"
        return b""

    def _end_document(self, name: bytes) -> None:
        scanner, self._scanner = self._scanner, None
        self._documents += 1
        if scanner is None or self._is_stopped:
            return
        passed = scanner.finish(self._listener)
        if passed:
            self._listener.passed(passed)
        self._listener.end_document(name)
