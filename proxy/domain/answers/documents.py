"""A provider's answer read by its shape: one JSON document, or events each of which holds one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from typing_extensions import override

from proxy.domain.parsing.json_shapes import Shape, ShapedScanner, ShapeListener
from proxy.domain.parsing.server_sent_events import DONE, EventListener, EventReader


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

    __slots__ = ("_constants", "_events", "_is_stopped", "_listener", "_scanner", "_shape", "_word")

    _listener: DocumentListener

    def __init__(self, shape: Shape, *, is_stream: bool, constants: Mapping[str, bytes] | None = None) -> None:
        """One document of this ``shape``, or a stream of them; see ``ShapedScanner`` for its ``constants``."""
        self._shape = shape
        self._constants = constants
        self._events = EventReader() if is_stream else None
        self._scanner: ShapedScanner | None = None
        self._word = b""
        self._is_stopped = False

    def feed(self, piece: bytes, listener: DocumentListener) -> None:
        """Take the next piece of the body. Raises MalformedResponse, and what ``listener`` does."""
        self._listener = listener
        try:
            if self._events is not None:
                self._events.feed(piece, self)
            elif piece:
                self._read(piece, b"")
        finally:
            del self._listener

    def finish(self, listener: DocumentListener) -> None:
        """The body has ended. Raises MalformedResponse where a document has not."""
        self._listener = listener
        try:
            if self._events is not None:
                self._events.finish(self)
            else:
                self._end_document(b"")
        finally:
            del self._listener

    def stop(self) -> None:
        """Read nothing more: whatever follows says nothing."""
        self._is_stopped = True

    @override
    def data(self, piece: bytes, name: bytes) -> None:
        # A line's end between two lines of JSON is a blank.
        piece = b" " if piece == b"\n" else piece
        if self._scanner is None:
            piece = self._word + piece
            if DONE.startswith(piece):
                self._word = piece
                return
            self._word = b""
        self._read(piece, name)

    @override
    def end_event(self, name: bytes) -> None:
        word, self._word = self._word, b""
        if self._scanner is not None:
            self._end_document(name)
        elif word == DONE and not self._is_stopped:
            self._listener.end_of_stream()

    def _read(self, piece: bytes, name: bytes) -> None:
        if self._is_stopped:
            return
        if self._scanner is None:
            self._scanner = ShapedScanner(self._shape, self._constants)
            self._listener.begin_document(name)
        passed = self._scanner.feed(piece, self._listener)
        if passed:
            self._listener.passed(passed)

    def _end_document(self, name: bytes) -> None:
        scanner, self._scanner = self._scanner or ShapedScanner(self._shape, self._constants), None
        if self._is_stopped:
            return
        passed = scanner.finish(self._listener)
        if passed:
            self._listener.passed(passed)
        self._listener.end_document(name)
