"""A provider's answer read by its shape: one JSON document, or events each of which holds one."""

from __future__ import annotations

from collections.abc import Callable

from proxy.domain.answer import EVENT_STREAM
from proxy.domain.event_stream import DONE, EventReader
from proxy.domain.json_shapes import Shape, ShapedScanner, ShapeListener


class DocumentReader:
    """Feed it the body as it comes. See ``EventListener`` for what it hears itself.

    ``is_done`` tells whether the word came by which OpenAI's streams end.
    """

    __slots__ = ("_begin_document", "_events", "_listener", "_scanner", "_shape", "_word", "is_done")

    def __init__(
        self,
        shape: Shape,
        content_type: str,
        listener: ShapeListener,
        begin_document: Callable[[bytes], None] | None = None,
    ) -> None:
        """Tell ``listener`` what is in the documents; ``begin_document`` hears the name of an event that holds one."""
        self._shape = shape
        self._listener = listener
        self._begin_document = begin_document
        self._events = EventReader(self) if content_type == EVENT_STREAM else None
        self._scanner = None if self._events else ShapedScanner(shape, listener)
        self._word = b""
        self.is_done = False

    def feed(self, piece: bytes) -> None:
        """Take the next piece of the body. Raises MalformedResponse."""
        if self._events is not None:
            self._events.feed(piece)
        elif self._scanner is not None:
            self._scanner.feed(piece)

    def finish(self) -> None:
        """The body has ended. Raises MalformedResponse where a document has not."""
        if self._events is not None:
            self._events.finish()
        elif self._scanner is not None:
            self._scanner.finish()

    def data(self, piece: bytes, name: bytes) -> None:
        """See ``EventListener``."""
        if self._scanner is None:
            piece = self._word + piece
            if DONE.startswith(piece):
                self._word = piece
                return
            self._word = b""
            if self._begin_document is not None:
                self._begin_document(name)
            self._scanner = ShapedScanner(self._shape, self._listener)
        self._scanner.feed(piece)

    def end_event(self, _name: bytes) -> None:
        """See ``EventListener``."""
        scanner, self._scanner, word, self._word = self._scanner, None, self._word, b""
        if scanner is not None:
            scanner.finish()
        elif word == DONE:
            self.is_done = True
