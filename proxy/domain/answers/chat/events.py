"""A chat completion for a client that has asked for chunks: as it comes, each event scrubbed and its images counted."""

from __future__ import annotations

import orjson
from typing_extensions import override

from proxy.domain.answers.answer import EVENT_STREAM, Answer, ErrorReader
from proxy.domain.answers.chat.completion import CHAT_SHAPE, CHOICES_LIMIT, CHUNK_SHAPE, TEXT
from proxy.domain.answers.chat.writing import ChatHead
from proxy.domain.answers.documents import DocumentListener, DocumentReader
from proxy.domain.answers.holder import EventHolder, error_event
from proxy.domain.answers.images.counter import CountedImages, PayloadImages, SeenImages
from proxy.domain.answers.images.in_text import TextImages
from proxy.domain.errors import ProxyError, UpstreamTruncated
from proxy.domain.parsing.image_header import Size
from proxy.domain.parsing.json_shapes import object_of, says_anything
from proxy.domain.parsing.json_tokens import MalformedResponse
from proxy.domain.parsing.server_sent_events import DONE, begin_event, write_event
from proxy.domain.usage import later_usage


class ChatEvents(Answer, DocumentListener):
    """Chunks of a chat completion. An event of at most 64 KiB is held until it is whole, and may become an error.

    ``usage`` is asked for whether or not the client wants it: the chunk that holds nothing else is for whoever does.
    """

    content_type = EVENT_STREAM
    complete = False

    _shape = CHAT_SHAPE
    _comes_as_events = True

    def __init__(self, head: ChatHead, read_error: ErrorReader, *, wants_usage: bool, in_text: bool = True) -> None:
        """The client sees the model and the time of ``head``. Images in text count where ``in_text``."""
        constants = {
            "model": orjson.dumps(head.model),
            "created": b"%d" % head.created_s,
            "object": b'"chat.completion.chunk"',
        }
        self.images = 0
        self.sizes: list[Size | None] = []
        self.usage: bytes | None = None
        self._read_error = read_error
        self._documents = DocumentReader(self._shape, is_stream=self._comes_as_events, constants=constants)
        self._holder = EventHolder()
        self._notes: dict[str, bytes] = {}
        self._failed = False
        self._wants_usage = wants_usage
        self._finds_text = in_text
        self._seen = SeenImages()
        self._payload = PayloadImages(self._seen)
        self._linked = CountedImages(self._seen)
        self._texts: dict[bytes, TextImages] = {}
        self._text: TextImages | None = None
        self._choice = b""
        self._counted = 0
        self._choices = 0
        self._ended = False
        self._done = False

    @property
    def whole(self) -> bool:
        """Whether no error came, and the answer said that it ended."""
        return not self._failed and self._ended

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
        """A stream that ends before the answer does ends with an error."""
        self._documents.finish(self)
        if not self._ended and not self._failed:
            self._holder.insert(
                error_event(UpstreamTruncated("The provider's stream ended before its answer was complete."))
            )
        if self._done and not self._failed:
            self._holder.insert(write_event(DONE))
        return self._holder.take_last()

    @override
    def break_off(self) -> None:
        """Each event has been counted when it ended."""

    @override
    def write_error(self, error: ProxyError) -> bytes | None:
        return self._holder.take_last() if self._failed else self._holder.write_error(error)

    @override
    def passed(self, piece: bytes) -> None:
        self._holder.write(piece)

    @override
    def begin_element(self) -> None:
        """Here, a choice."""
        self._choices += 1
        self._choice = b"0"

    @override
    def begin_payload(self, name: str) -> None:
        """A choice's text goes on from one event to the next."""
        if name == TEXT:
            choice = self._choice if self._choice in self._texts or len(self._texts) < CHOICES_LIMIT else b"0"
            self._text = self._texts.setdefault(choice, TextImages(is_wanted=self._finds_text))
        else:
            self._text = None
            self._payload.begin()

    @override
    def payload(self, piece: bytes) -> None:
        if self._text is None:
            self._payload.add(piece)
        else:
            self._text.add(piece, self._linked)

    @override
    def end_payload(self) -> None:
        if self._text is None:
            self._payload.end()

    @override
    def end_element(self) -> None: ...

    @override
    def note(self, name: str, value: bytes) -> None:
        if name == "index":
            self._choice = value
        elif name == "usage":
            self.usage = later_usage(self.usage, object_of(value))
        elif value != b"null" and (name != "error" or says_anything(value)):
            self._notes[name] = value

    @override
    def begin_document(self, name: bytes) -> None:
        self._notes = {}
        self._holder.write(begin_event(b""))
        self._choices = 0

    @override
    def end_of_stream(self) -> None:
        """The word is sent at the very end, when the answer has been charged."""
        self._done = True
        self._end()

    def _end(self) -> None:
        self._ended = True
        for text in self._texts.values():
            text.end(self._linked)
        self.images, self.sizes = self._seen.count, self._seen.sizes

    @override
    def end_document(self, name: bytes) -> None:
        notes = self._notes
        if name == b"error" or "error" in notes:
            self._fail(notes.get("error", b"null"))
            return
        if "finish_reason" in notes:
            self._end()
        if not self._choices and not self._wants_usage and not self._holder.begun:
            self._holder.drop()
            return
        self.images, self.sizes = self._seen.count, self._seen.sizes
        self._holder.end(charged=self.images > self._counted)
        self._counted = self.images

    def _fail(self, report: bytes) -> None:
        if self._holder.begun:
            self._holder.end(charged=False)
        self._holder.drop()
        self._failed = True
        self._documents.stop()
        self.failure = self._read_error(report)
        self._holder.insert(error_event(self.failure))


class ChatChunk(ChatEvents):
    """A completion that came whole, for a client that has asked for chunks: it becomes one of them while it comes."""

    _shape = CHUNK_SHAPE
    _comes_as_events = False

    @override
    def finish(self) -> bytes:
        self._documents.finish(self)
        if not self._choices and not self._failed:
            raise MalformedResponse("the answer has no choices")
        if not self._failed:
            self._end()
            self._holder.insert(write_event(DONE))
        return self._holder.take_last()

    @override
    def break_off(self) -> None:
        """The one event holds all images, which count one by one."""
        self.images, self.sizes = self._seen.count, self._seen.sizes
