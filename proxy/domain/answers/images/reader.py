"""A provider's answer in any form, on its way to a client that knows OpenAI's images.

Where images stand is the same for all providers (``places``); a ``Reading`` says what one kind of provider means by its
errors and its reasons. An image is passed on while it arrives, as the form that the client has asked for has it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import orjson
from typing_extensions import override

from proxy.domain.answers.answer import Answer, ErrorReader
from proxy.domain.answers.documents import DocumentListener, DocumentReader
from proxy.domain.answers.holder import HELD_BYTES_LIMIT
from proxy.domain.answers.images.counter import Fingerprint, SeenImages
from proxy.domain.answers.images.in_text import ImageSink, Link, TextImages
from proxy.domain.answers.images.writing import DETAILS, IN_WORDS, OF_ONE_IMAGE, ImagesWriter
from proxy.domain.answers.places import BASE64, DOCUMENT, EVENT, SIGNATURE, TEXT
from proxy.domain.errors import NothingGenerated, ProxyError, UpstreamTruncated
from proxy.domain.parsing.base64_text import Base64Text
from proxy.domain.parsing.image_addresses import PREFIX_BYTES_LIMIT, Place, read_place
from proxy.domain.parsing.image_header import SIZES_LIMIT, Size
from proxy.domain.parsing.json_shapes import object_of, one_line, says_anything, text_of, whole_escapes
from proxy.domain.parsing.json_tokens import MalformedResponse
from proxy.domain.usage import add_usage, later_usage

PARTIAL = b"partial_image"
COMPLETED = b"completed"
NOT_WITHHELD = frozenset({b"null", b'""', b'"SUCCESS"'})
"""What stands in the place of a reason where there is none (Stability's models on Amazon Bedrock)."""

ONE_FAILED = b'partial_failed"'
"""How an event's type ends that tells of one image of several (https://www.volcengine.com/docs/82379)."""

TEXT_BYTES_LIMIT = 4_096
"""What is kept of a text, which may say why there is no image."""

Refuser = Callable[[Mapping[str, bytes]], ProxyError | None]
"""The error for an answer in which no image was, by its notes; None where it gives no reason.

The notes are ``finish``, ``block``, ``why``, ``withheld``, ``text``, ``failure``, which is a report of its own, and
those of an error that stands in the answer itself: ``message``, ``detail``, ``code``, ``status``.
"""


@dataclass(frozen=True, slots=True)
class Reading:
    """What one kind of provider means: ``read_error`` reads an error within an answer, ``refuse`` its reasons."""

    read_error: ErrorReader
    refuse: Refuser = lambda _notes: None


class ImagesReader(Answer, DocumentListener, ImageSink):
    """Reads images in any form, and writes them in the form that the client has asked for."""

    complete = False

    def __init__(
        self, reading: Reading, writer: ImagesWriter, *, comes_as_events: bool, seen: SeenImages | None = None
    ) -> None:
        """Read one document, or a stream of them, and write with ``writer``; ``seen`` are images that were before."""
        self.images = 0
        self.sizes: list[Size | None] = []
        self.usage: bytes | None = None
        self._reading = reading
        self._writer = writer
        self._is_stream = comes_as_events
        self._documents = DocumentReader(EVENT if comes_as_events else DOCUMENT, is_stream=comes_as_events)
        self._seen = seen or SeenImages()
        self._before = self._seen.count
        self._told: list[tuple[str, str]] = []
        # What the event that is read has reported, and all that were complete before it.
        self._event_usage: bytes | None = None
        self._usage_before: bytes | None = None
        # What the last event with an image has reported, and whether this one's image was there before.
        self._usage_of_image: bytes | None = None
        self._usage_at_begin: bytes | None = None
        self._is_repeated = False
        # Whether the answer says of its images, and of all of them, that they may not be seen; None until it says so.
        self._is_withheld: bool | None = None
        self._fingerprint = Fingerprint()
        self._notes: dict[str, bytes] = {}
        self._error: MalformedResponse | ProxyError | None = None
        self._text = bytearray()
        self._text_images = TextImages()
        self._awaits_completed = False
        self._name = b""
        self._depth = 0
        self._in_text = False
        self._link: Link | None = None
        self._base64: Base64Text | None = None
        self._begin_image()

    def _begin_image(self) -> None:
        self._details: dict[str, bytes] = {}
        # Whether it is a draft or a thought, whether its payload has begun, and whether all of that has come.
        self._is_partial = self._name.endswith(PARTIAL)
        self._skipped = self._is_withheld is True
        self._written = self._is_whole = False
        self._passing = self._is_base64 = self._is_alone = self._begun_as_partial = False
        self._prefix: bytes | None = None

    # --- The answer --------------------------------------------------------------------------------------------------

    @property
    @override
    def content_type(self) -> str:
        return self._writer.content_type

    @property
    def told(self) -> Sequence[tuple[str, str]]:  # type: ignore[override]
        """Of a document, what it says stands for all its images; an event says it of its own."""
        if self._is_stream:
            return self._told
        notes = self._notes
        return repeated(text_of(notes.get("quality")), text_of(notes.get("size")), self._seen.count - self._before)

    @property
    @override
    def whole(self) -> bool:
        """An error is raised in time."""
        return True

    @property
    @override
    def failed_in_stream(self) -> bool:
        return self._is_stream and isinstance(self._error, ProxyError)

    @property
    @override
    def comment(self) -> bytes:
        return self._writer.comment

    @override
    def feed(self, piece: bytes) -> bytes:
        """What was whole before an error goes out before it is raised."""
        if self._error is None:
            try:
                self._documents.feed(piece, self)
            except (MalformedResponse, ProxyError) as error:
                self._error = error
        passed = self._writer.take()
        if not passed:
            self._raise_error()
        return passed

    @override
    def finish(self) -> bytes:
        self.end()
        if not self.images:
            self.check_reason()
        return self._writer.finish(self._notes, self.usage)

    def end(self) -> None:
        """The body has ended, and more may follow in another one. Raises MalformedResponse or ProxyError."""
        self._raise_error()
        self._documents.finish(self)
        self._text_images.end(self)
        self._raise_error()
        if self._awaits_completed:
            raise UpstreamTruncated("The provider's stream ended before its image was complete.")

    @override
    def break_off(self) -> None:
        """What was whole counts, whatever was to follow it."""
        with contextlib.suppress(MalformedResponse):
            if self._is_whole:
                self._end_image()

    @property
    def is_cut(self) -> bool:
        """After ``break_off``: whether an image had begun that is not whole."""
        return self._written

    @override
    def close(self) -> bytes | None:
        return self._writer.close(self._notes, self.usage) if self.images else None

    @override
    def write_error(self, error: ProxyError) -> bytes | None:
        return self._writer.write_error(error)

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error

    def check_reason(self) -> None:
        """Raise the reason for which there is no image, where one is given or there has to be one."""
        notes = self._notes
        if self._text:
            notes["text"] = b'"%b"' % whole_escapes(bytes(self._text), TEXT_BYTES_LIMIT)
        if (refusal := self._reading.refuse(notes)) is not None:
            raise refusal
        if "listed" not in notes and "finish" not in notes and not self._is_stream:
            raise MalformedResponse("the answer has no images")
        if self._is_stream or self._writer.takes_partials:
            raise NothingGenerated("The provider made no image, and does not say why.", reason="no_image")

    # --- Documents ---------------------------------------------------------------------------------------------------

    @override
    def begin_document(self, name: bytes) -> None:
        self._name = name
        self._depth = 0
        self._is_repeated = False
        self._usage_at_begin = self.usage
        self._is_withheld = None

    @override
    def passed(self, piece: bytes) -> None:
        """It is all written anew."""

    @override
    def end_document(self, name: bytes) -> None:
        kind = self._notes.pop("kind", b"")
        if self._event_usage is not None:
            self._end_usage(is_of_image=name.endswith(COMPLETED) or text_of(kind).encode().endswith(COMPLETED))
        if self._error is None and (name == b"error" or kind == b'"error"'):
            self._fail(self._flat_error())

    def _end_usage(self, *, is_of_image: bool) -> None:
        """An event with an image reports what that took; any other one, as Gemini's, all that was taken so far."""
        if not is_of_image:
            self.usage = later_usage(self._usage_at_begin, self._event_usage)
        elif self._is_repeated and self._event_usage == self._usage_of_image:
            # The same event again.
            self.usage = self._usage_before
        else:
            self._usage_before, self._usage_of_image = self.usage, self._event_usage
        self._event_usage = None

    def _fail(self, report: bytes) -> None:
        """Read nothing after it, not even of the same piece: what counts does not depend on the cuts."""
        self._error = self._error or self._reading.read_error(report)
        raise self._error

    def _flat_error(self) -> bytes:
        """OpenAI reports some errors in the event itself."""
        words = {
            name: orjson.Fragment(self._notes[name]) for name in ("message", "code", "param") if name in self._notes
        }
        return orjson.dumps(words)

    @override
    def end_of_stream(self) -> None: ...

    # --- Images ------------------------------------------------------------------------------------------------------

    @override
    def begin_element(self) -> None:
        """What holds others is not one itself, unless its own image has come."""
        self._depth += 1
        if not self._written:
            self._begin_image()

    @override
    def end_element(self) -> None:
        self._depth -= 1
        if self._written:
            self._end_image()

    @override
    def begin_payload(self, name: str) -> None:
        """Of two payloads of an image, the first one counts."""
        self._in_text = name == TEXT
        if self._in_text or name == SIGNATURE:
            self._passing = False
            return
        if not self._depth:
            self._begin_image()
            self._is_alone = True
        self._passing = not (self._skipped or self._written)
        self._is_base64 = name == BASE64
        self._prefix = b""

    @override
    def payload(self, piece: bytes) -> None:
        if self._in_text:
            self._text += piece[: max(0, TEXT_BYTES_LIMIT - len(self._text))]
            self._text_images.add(piece, self)
        elif not self._passing:
            return
        elif self._prefix is None:
            self._write(piece)
        else:
            self._prefix += piece
            if len(self._prefix) >= PREFIX_BYTES_LIMIT:
                self._decide()

    @override
    def end_payload(self) -> None:
        if self._in_text:
            # In a stream it goes on in the next document.
            if not self._is_stream:
                self._text_images.end(self)
            return
        if self._passing and self._prefix is not None:
            self._decide()
        self._is_whole = self._is_whole or (self._passing and self._written)
        self._passing = False
        if self._is_alone and self._is_whole:
            self._end_image()

    def _decide(self) -> None:
        prefix, self._prefix = self._prefix or b"", None
        place = read_place(prefix, is_base64=self._is_base64)
        if place is None or (self._is_partial and not self._writer.takes_partials):
            self._passing = False
            return
        self._begin(place)
        self._write(prefix[place.lead_bytes :])

    def _begin(self, place: Place) -> None:
        if self._link is not None and self._link.is_flowing:
            self.end_linked(is_image=True)
        self._written = True
        self._begun_as_partial = self._is_partial
        if place.media_type:
            self._details["media_type"] = b'"%b"' % place.media_type
        self._base64 = Base64Text() if place.kind == b"b64_json" else None
        self._fingerprint.begin()
        self._writer.begin(place.kind, is_partial=self._is_partial)

    def _write(self, piece: bytes) -> None:
        if self._base64 is not None:
            piece = self._base64.take(piece)
        self._writer.payload(piece)
        self._fingerprint.add(piece)

    def _end_image(self) -> None:
        """Charge it, unless it is a draft, or one that was there before; what can be taken back is not sent then."""
        if not self._is_whole:
            self._written = False
            return
        base64, self._base64 = self._base64, None
        if base64 is not None and (rest := base64.end()):
            self._write(rest)
        facts = self._notes if self._is_stream else {}
        details = {name: facts[name] for name in DETAILS if name in facts} | self._details
        # One that says after its bytes that it is a draft is none that can be delivered as one.
        is_unwanted = self._skipped or self._is_partial is not self._begun_as_partial
        self._is_repeated = not is_unwanted and self._fingerprint in self._seen
        is_delivered = not (is_unwanted or self._is_repeated) or not self._writer.cancel()
        if self._begun_as_partial and not is_unwanted:
            self._awaits_completed = True
            self._writer.end(details, self._event_usage, charged=False)
        elif is_delivered:
            self._awaits_completed = False
            self._seen.add(self._fingerprint)
            self.images, self.sizes = self._seen.count, self._seen.sizes
            if self._is_stream and len(self._told) < min(self.images - self._before, SIZES_LIMIT):
                self._told.append((text_of(details.get("quality")), text_of(details.get("size"))))
            self._writer.end(details, self._event_usage or self.usage, charged=True)
        self._written = self._is_whole = False
        for name in OF_ONE_IMAGE:
            facts.pop(name, None)

    # --- Images in text: small ones are held, for another image may come between two halves of their text ------------

    @override
    def begin_linked(self, place: Place) -> None:
        self._link = Link(place)

    @override
    def linked(self, piece: bytes) -> None:
        link = self._link
        if link is None:
            return
        if link.is_flowing:
            self._write(piece)
        else:
            link.held += piece
            if len(link.held) > HELD_BYTES_LIMIT:
                self._open_link(link)

    @override
    def end_linked(self, *, is_image: bool) -> None:
        """What has been sent of it is delivered, whatever it is."""
        link, self._link = self._link, None
        if link is None:
            return
        if not link.is_flowing:
            if not is_image or not link.held:
                return
            self._open_link(link)
        self._is_whole = True
        self._end_image()

    def _open_link(self, link: Link) -> None:
        if self._written:
            self._end_image()
        is_thought = self._depth > 0 and self._skipped
        self._begin_image()
        self._skipped = is_thought
        self._begin(link.place)
        self._write(bytes(link.held))
        link.held, link.is_flowing = bytearray(), True

    # --- Notes -------------------------------------------------------------------------------------------------------

    def _report(self, value: bytes) -> None:
        usage = object_of(value)
        if usage is not None:
            self._event_usage = usage
            self.usage = add_usage(self._usage_before, usage)

    @override
    def note(self, name: str, value: bytes) -> None:
        if name == "withheld":
            self._is_withheld = self._is_withheld is not False and value not in NOT_WITHHELD
        if value == b"null":
            return
        if name == "usage":
            self._report(value)
        elif name in ("error", "failure"):
            # That of one image, or one of which the provider says nothing more, is the reason where there is no image.
            is_of_one = name == "failure" or self._notes.get("kind", b"").endswith(ONE_FAILED)
            if not says_anything(value):
                return
            if is_of_one:
                self._notes.setdefault("failure", one_line(value))
            else:
                self._fail(value)
        elif name == "skip":
            self._skipped = self._skipped or value == b"true"
        elif name == "kind":
            self._notes[name] = value
            # Some say what an event is after its image.
            self._is_partial = self._is_partial or text_of(value).encode().endswith(PARTIAL)
        else:
            self._note_words(name, value)

    def _note_words(self, name: str, value: bytes) -> None:
        if name in IN_WORDS and value[:1] != b'"':
            # What an image says of itself is text; anything else stays inside.
            return
        if self._depth and name in IN_WORDS:
            self._details[name] = one_line(value)
        else:
            self._notes[name] = one_line(value)


def repeated(quality: str, size: str, images: int) -> Sequence[tuple[str, str]]:
    """What is said of each of so many images, as far as their sizes are kept; nothing where nothing is said."""
    return [(quality, size)] * min(images, SIZES_LIMIT) if quality or size else ()
