"""Images written as clients know them, in pieces: OpenAI's images answer, and its stream of images.

Every member that OpenAI's schema requires is there
(https://platform.openai.com/docs/api-reference/images, https://platform.openai.com/docs/api-reference/images-streaming).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Final, Protocol

import orjson
from typing_extensions import override

from proxy.domain.answers.answer import EVENT_STREAM, JSON
from proxy.domain.answers.holder import HELD_BYTES_LIMIT, EventHolder
from proxy.domain.answers.usage_writing import image_tokens
from proxy.domain.errors import ProxyError
from proxy.domain.parsing.json_tokens import MalformedResponse
from proxy.domain.parsing.server_sent_events import begin_event
from proxy.domain.records import record

Notes = Mapping[str, bytes]
"""What is known of an answer or of an image, as JSON."""

SETTINGS: Final = ("background", "output_format", "quality", "size")
IN_WORDS: Final = ("revised_prompt", "media_type")
OF_ONE_IMAGE: Final = ("partial_image_index", *IN_WORDS)
DETAILS: Final = ("created", "created_at", *OF_ONE_IMAGE, *SETTINGS)
"""What an image in a stream may say of itself."""

_OPEN: Final = {"background": b'"auto"', "output_format": b'"png"', "quality": b'"auto"', "size": b'"auto"'}


@record
class ImagesHead:
    """What an answer says that no provider has to: ``created_s`` is now, in seconds since the epoch.

    Events are named after ``task``. ``asked`` are the settings that the client asked for, as JSON. Clients see the
    provider's token counts where ``shows_tokens``.
    """

    created_s: int
    task: str = "image_generation"
    asked: Notes = field(default_factory=dict)
    shows_tokens: bool = False


class ImagesWriter(Protocol):
    """One answer; ``take`` gives what may be sent by now."""

    __slots__ = ()

    @property
    def content_type(self) -> str:
        """What it is."""
        ...

    @property
    def takes_partials(self) -> bool:
        """Whether there is a place for an image that is not finished."""
        ...

    @property
    def comment(self) -> bytes:
        """What may be sent now to show that the gateway lives; nothing where nothing may."""
        ...

    def begin(self, kind: bytes, *, is_partial: bool) -> None:
        """An image's payload begins, ``b64_json`` or ``url``."""
        ...

    def payload(self, piece: bytes) -> None:
        """More of it, as JSON has it."""
        ...

    def end(self, details: Notes, usage: bytes | None, *, charged: bool) -> None:
        """The image is whole."""
        ...

    def cancel(self) -> bool:
        """Take the image that has begun back; false where some of it may have been sent."""
        ...

    def take(self) -> bytes:
        """What may be sent."""
        ...

    def finish(self, notes: Notes, usage: bytes | None) -> bytes:
        """The end of the answer."""
        ...

    def close(self, notes: Notes, usage: bytes | None) -> bytes | None:
        """What makes a whole answer of all images that are whole; None where a part of another was taken."""
        ...

    def write_error(self, error: ProxyError) -> bytes | None:
        """How the client learns of an error after the answer has begun; None where only by a cut connection."""
        ...


class ImagesJson(ImagesWriter):
    """``{"data": […], "created", …}``; held while it is small, so that it may still become an error."""

    __slots__ = ("_begun", "_head", "_held_bytes", "_image", "_images", "_is_sent_in_part", "_whole")

    content_type = JSON
    takes_partials = False
    comment = b""

    def __init__(self, head: ImagesHead) -> None:
        """Start before the first image."""
        self._head = head
        self._whole: list[bytes] = [b'{"data":[']
        self._image: list[bytes] = []
        self._images = 0
        self._held_bytes = 0
        self._begun = False
        self._is_sent_in_part = False

    @override
    def begin(self, kind: bytes, *, is_partial: bool) -> None:
        self._image = [b'%b{"%b":"' % (b"," if self._images else b"", kind)]

    @override
    def payload(self, piece: bytes) -> None:
        self._image.append(piece)
        self._held_bytes += len(piece)
        # By its bytes alone, and not by when it is taken: the output is the same however the body is cut.
        self._begun = self._begun or self._held_bytes > HELD_BYTES_LIMIT

    @override
    def end(self, details: Notes, usage: bytes | None, *, charged: bool) -> None:
        members = b"".join(b',"%b":%b' % (name.encode(), details[name]) for name in IN_WORDS if name in details)
        self._whole += *self._image, b'"%b}' % members
        self._image = []
        self._images += 1
        self._is_sent_in_part = False

    @override
    def cancel(self) -> bool:
        if self._begun:
            return False
        self._image = []
        return True

    @override
    def take(self) -> bytes:
        if not self._begun:
            return b""
        self._is_sent_in_part = self._is_sent_in_part or bool(self._image)
        out = b"".join((*self._whole, *self._image))
        self._whole, self._image = [], []
        return out

    @override
    def finish(self, notes: Notes, usage: bytes | None) -> bytes:
        created = notes.get("created") or notes.get("created_at", b"")
        facts = b"".join(b',"%b":%b' % (name.encode(), notes[name]) for name in SETTINGS if _is_scalar(notes.get(name)))
        if self._head.shows_tokens and usage is not None:
            facts += b',"usage":' + image_tokens(usage)
        self._begun = True
        seconds = created if created.isdigit() else b"%d" % self._head.created_s
        return b"".join((*self._whole, b'],"created":%b%b}' % (seconds, facts)))

    @override
    def close(self, notes: Notes, usage: bytes | None) -> bytes | None:
        return None if self._is_sent_in_part else self.finish(notes, usage)

    def write_error(self, _error: ProxyError) -> None:
        """JSON that has begun has no room for an error."""


class ImagesStream(ImagesWriter):
    """``image_generation.completed``, or ``image_edit.completed``, for each image, and its drafts before it."""

    __slots__ = ("_head", "_holder", "_is_partial")

    content_type = EVENT_STREAM
    takes_partials = True

    def __init__(self, head: ImagesHead) -> None:
        """Start before the first event."""
        self._head = head
        self._holder = EventHolder()
        self._is_partial = False

    @property
    @override
    def comment(self) -> bytes:
        return self._holder.comment

    @override
    def begin(self, kind: bytes, *, is_partial: bool) -> None:
        self._is_partial = is_partial
        name = f"{self._head.task}.{'partial_image' if is_partial else 'completed'}".encode()
        self._holder.write(begin_event(name) + b'{"type":"%b","%b":"' % (name, kind))

    @override
    def payload(self, piece: bytes) -> None:
        """Raises MalformedResponse where it would end a line."""
        if b"\n" in piece or b"\r" in piece:
            raise MalformedResponse("a string holds a line's end")
        self._holder.write(piece)

    @override
    def end(self, details: Notes, usage: bytes | None, *, charged: bool) -> None:
        created = details.get("created_at") or details.get("created", b"")
        facts = {"created_at": created if created.isdigit() else b"%d" % self._head.created_s}
        facts |= {name: details[name] for name in IN_WORDS if name in details}
        facts |= {**_OPEN, **self._head.asked} | {
            name: details[name] for name in SETTINGS if _is_scalar(details.get(name))
        }
        if self._is_partial:
            index = details.get("partial_image_index", b"")
            facts["partial_image_index"] = index if index.isdigit() else b"0"
        else:
            facts["usage"] = image_tokens(usage if self._head.shows_tokens else None)
        members = b"".join(b',"%b":%b' % (name.encode(), value) for name, value in facts.items())
        self._holder.write(b'"%b}' % members)
        self._holder.end(charged=charged)

    @override
    def cancel(self) -> bool:
        if self._holder.begun:
            return False
        self._holder.drop()
        return True

    @override
    def take(self) -> bytes:
        return self._holder.take()

    @override
    def finish(self, notes: Notes, usage: bytes | None) -> bytes:
        return self._holder.take_last()

    @override
    def close(self, notes: Notes, usage: bytes | None) -> None:
        """Each event stands for itself."""

    @override
    def write_error(self, error: ProxyError) -> bytes | None:
        return self._holder.write_error(error)


def _is_scalar(value: bytes | None) -> bool:
    return value is not None and value[:1] not in (b"{", b"[")


def settings_asked(fields: Mapping[str, object]) -> dict[str, bytes]:
    """Those of a request's ``fields`` that an event repeats, as JSON."""
    return {name: orjson.dumps(fields[name]) for name in SETTINGS if isinstance(fields.get(name), str)}
