"""Images written as clients know them, in pieces: OpenAI's images answer, and its stream of images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from typing_extensions import override

from proxy.domain.answers.answer import EVENT_STREAM, JSON
from proxy.domain.answers.holder import AnswerHolder, EventHolder
from proxy.domain.errors import ProxyError
from proxy.domain.parsing.json_tokens import MalformedResponse
from proxy.domain.parsing.server_sent_events import begin_event

Details = Mapping[str, bytes]
"""What is known of an image beside itself, as JSON: ``revised_prompt``, ``media_type``."""


class ImagesWriter(Protocol):
    """One answer; ``take`` gives what may be sent by now."""

    __slots__ = ()

    @property
    def content_type(self) -> str:
        """What it is."""
        ...

    @property
    def comment(self) -> bytes:
        """What may be sent now to show that the gateway lives; nothing where nothing may."""
        ...

    def begin(self, kind: bytes) -> None:
        """An image's payload begins, ``b64_json`` or ``url``."""
        ...

    def payload(self, piece: bytes) -> None:
        """More of it, as JSON has it."""
        ...

    def end(self, details: Details, *, charged: bool) -> None:
        """The image is whole."""
        ...

    def take(self) -> bytes:
        """What may be sent."""
        ...

    def finish(self) -> bytes:
        """The end of the answer."""
        ...

    def write_error(self, error: ProxyError) -> bytes | None:
        """How the client learns of an error after the answer has begun; None where only by a cut connection."""
        ...


class ImagesJson(ImagesWriter):
    """``{"created", "data": […]}``; held while it is small, so that it may still become an error."""

    content_type = JSON
    comment = b""

    def __init__(self, created_s: int) -> None:
        """``created_s`` is in seconds since the epoch."""
        self._holder = AnswerHolder()
        self._out: list[bytes] = [b'{"created":%d,"data":[' % created_s]
        self._separator = b""

    @override
    def begin(self, kind: bytes) -> None:
        self._out.append(b'%b{"%b":"' % (self._separator, kind))
        self._separator = b","

    @override
    def payload(self, piece: bytes) -> None:
        self._out.append(piece)

    @override
    def end(self, details: Details, *, charged: bool) -> None:
        self._out.append(_end_image(details))

    @override
    def take(self) -> bytes:
        out, self._out = b"".join(self._out), []
        return self._holder.pass_on(out)

    @override
    def finish(self) -> bytes:
        return self._holder.end(b"".join([*self._out, b"]}"]))

    def write_error(self, _error: ProxyError) -> None:
        """JSON that has begun has no room for an error."""


class ImagesStream(ImagesWriter):
    """``image_generation.completed``, or ``image_edit.completed``, for each image."""

    content_type = EVENT_STREAM

    def __init__(self, created_s: int, task: bytes = b"image_generation") -> None:
        """``created_s`` is in seconds since the epoch; ``task`` is what the events are named after."""
        kind = task + b".completed"
        self._lead = begin_event(kind) + b'{"type":"%b","created_at":%d,"' % (kind, created_s)
        self._holder = EventHolder()

    @property
    @override
    def comment(self) -> bytes:
        return self._holder.comment

    @override
    def begin(self, kind: bytes) -> None:
        self._holder.write(self._lead + kind + b'":"')

    @override
    def payload(self, piece: bytes) -> None:
        """Raises MalformedResponse where it would end a line."""
        if b"\n" in piece or b"\r" in piece:
            raise MalformedResponse("a string holds a line's end")
        self._holder.write(piece)

    @override
    def end(self, details: Details, *, charged: bool) -> None:
        self._holder.write(_end_image(details))
        self._holder.end(charged=charged)

    @override
    def take(self) -> bytes:
        return self._holder.take()

    @override
    def finish(self) -> bytes:
        return self._holder.take_last()

    @override
    def write_error(self, error: ProxyError) -> bytes | None:
        return self._holder.write_error(error)


def _end_image(details: Details) -> bytes:
    return b'"%b}' % b"".join(b',"%b":%b' % (name.encode(), value) for name, value in details.items())
