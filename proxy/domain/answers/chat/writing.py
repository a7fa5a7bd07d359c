"""A chat completion written as clients know it, in pieces: as one document, and as a stream of chunks.

The members are those of https://platform.openai.com/docs/api-reference/chat/object and its chunks, and ``images``, each
an address of the kind ``data:``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import orjson
from typing_extensions import override

from proxy.domain.answers.answer import EVENT_STREAM, JSON
from proxy.domain.answers.holder import AnswerHolder, EventHolder
from proxy.domain.errors import ProxyError
from proxy.domain.parsing.json_tokens import MalformedResponse
from proxy.domain.parsing.server_sent_events import DONE, write_event
from proxy.domain.records import record

TEXT_BYTES_LIMIT = 262_144
"""How much text is held where images stand in it: JSON has all of it in one place, and the images in another."""

_IMAGE_LEAD = b'{"type":"image_url","image_url":{"url":"'


@record
class ChatHead:
    """What stands over an answer: its name, when it was made (seconds since the epoch), and the client's ``model``."""

    id: str
    created_s: int
    model: str

    def opening(self, kind: str) -> bytes:
        """An object of this ``kind``, as far as its choices."""
        facts = {"id": self.id, "object": kind, "created": self.created_s, "model": self.model}
        return orjson.dumps(facts)[:-1] + b',"choices":['


@record
class ChatEnd:
    """Why an answer ended: ``stop``, ``length`` or ``content_filter``, and what is said in the place of an answer."""

    finish_reason: str
    refusal: str | None = None


class ChatWriter(Protocol):
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

    def begin_text(self) -> None:
        """A piece of the text begins."""
        ...

    def begin_image(self, lead: bytes) -> None:
        """An image's address begins with ``lead``."""
        ...

    def write(self, piece: bytes) -> None:
        """More of what has begun, as JSON has it. Raises MalformedResponse where there is no place for it any more."""
        ...

    def end(self, signature: bytes | None, *, charged: bool) -> None:
        """What has begun is whole; ``signature`` is what its provider wants back with it, as JSON has it."""
        ...

    def sign(self, signature: bytes) -> None:
        """The same of the message."""
        ...

    def take(self) -> bytes:
        """What may be sent."""
        ...

    def finish(self, end: ChatEnd, usage: Mapping[str, Any] | None) -> bytes:
        """The end of the answer."""
        ...

    def close(self, usage: Mapping[str, Any] | None) -> bytes | None:
        """What makes a whole answer of all that is whole; None where a part of something else was taken."""
        ...

    def write_error(self, error: ProxyError) -> bytes | None:
        """How the client learns of an error after the answer has begun; None where only by a cut connection."""
        ...


class CompletionJson(ChatWriter):
    """``chat.completion``. Images are passed on while they come, text is held until they are all there.

    Text that is too long to be held is passed on as well, and then ends what stood before it: images before and after
    it have no place.
    """

    content_type = JSON
    comment = b""

    def __init__(self, head: ChatHead) -> None:
        """Start with its head."""
        self._holder = AnswerHolder()
        self._out: list[bytes] = []
        self._out_bytes = 0
        self._put(head.opening("chat.completion"), b'{"index":0,"message":{"role":"assistant"')
        # As far as all is whole, and in which member that is.
        self._whole_bytes, self._whole_member = self._out_bytes, b""
        self._text: list[bytes] = []
        self._text_bytes = 0
        self._member = b""
        self._closed: set[bytes] = set()
        self._in_text = False
        self._signature: bytes | None = None

    @override
    def begin_text(self) -> None:
        self._in_text = True

    @override
    def begin_image(self, lead: bytes) -> None:
        self._in_text = False
        if self._member == b"images":
            self._put(b",")
        else:
            self._open(b"images", b"[")
        self._put(_IMAGE_LEAD, lead)

    @override
    def write(self, piece: bytes) -> None:
        if not self._in_text or self._member == b"content":
            self._put(piece)
            return
        if b"content" in self._closed:
            raise MalformedResponse("a long text goes on after an image")
        self._text.append(piece)
        self._text_bytes += len(piece)
        if self._text_bytes > TEXT_BYTES_LIMIT:
            self._begin_content()

    @override
    def end(self, signature: bytes | None, *, charged: bool) -> None:
        if not self._in_text:
            self._put(b'"}%b}' % _signed(signature))
            self._whole_bytes, self._whole_member = self._out_bytes, self._member
        elif signature is not None:
            self.sign(signature)

    @override
    def sign(self, signature: bytes) -> None:
        self._signature = signature

    @override
    def take(self) -> bytes:
        out, self._out = b"".join(self._out), []
        return self._holder.pass_on(out)

    @override
    def finish(self, end: ChatEnd, usage: Mapping[str, Any] | None) -> bytes:
        if self._text:
            self._begin_content()
        self._close()
        if b"content" not in self._closed:
            self._put(b',"content":null')
        self._put(
            b',"refusal":%b%b},"finish_reason":%b,"logprobs":null}]'
            % (orjson.dumps(end.refusal), _signed(self._signature), orjson.dumps(end.finish_reason))
        )
        if usage is not None:
            self._put(b',"usage":' + orjson.dumps(usage))
        return self._holder.end(b"".join([*self._out, b"}"]))

    @override
    def close(self, usage: Mapping[str, Any] | None) -> bytes | None:
        left = b"".join((self._holder.end(), *self._out))
        whole_bytes_left = self._whole_bytes - (self._out_bytes - len(left))
        if whole_bytes_left < 0:
            return None
        self._out, self._member = [left[:whole_bytes_left]], self._whole_member
        return self.finish(ChatEnd("length"), usage)

    def write_error(self, _error: ProxyError) -> None:
        """JSON that has begun has no room for an error."""

    def _put(self, *pieces: bytes) -> None:
        self._out += pieces
        self._out_bytes += sum(map(len, pieces))

    def _begin_content(self) -> None:
        self._open(b"content", b'"')
        self._put(*self._text)
        self._text = []

    def _open(self, member: bytes, mark: bytes) -> None:
        self._close()
        if member in self._closed:
            raise MalformedResponse("a long text stands between two images")
        self._member = member
        self._put(b',"%b":%b' % (member, mark))

    def _close(self) -> None:
        if self._member:
            self._put(b"]" if self._member == b"images" else b'"')
            self._closed.add(self._member)
            self._member = b""


class CompletionChunks(ChatWriter):
    """``chat.completion.chunk`` for each piece of text and each image, then the reason why it ended, then usage."""

    content_type = EVENT_STREAM

    def __init__(self, head: ChatHead, *, wants_usage: bool) -> None:
        """Start before the first chunk; the one with the usage is for whoever asked for it."""
        self._holder = EventHolder()
        self._opening = head.opening("chat.completion.chunk")
        self._role = b'"role":"assistant",'
        self._wants_usage = wants_usage
        self._closing = b""

    @property
    def comment(self) -> bytes:
        """A comment, but not within an event."""
        return self._holder.comment

    @override
    def begin_text(self) -> None:
        self._begin(b'"content":"', b'"%b')

    @override
    def begin_image(self, lead: bytes) -> None:
        self._begin(b'"images":[%b%b' % (_IMAGE_LEAD, lead), b'"}%b}]')

    @override
    def write(self, piece: bytes) -> None:
        self._holder.write(piece)

    @override
    def end(self, signature: bytes | None, *, charged: bool) -> None:
        self._holder.write(self._closing % _signed(signature) + b'},"finish_reason":null}]}')
        self._holder.end(charged=charged)

    @override
    def sign(self, signature: bytes) -> None:
        self._insert(b'{"index":0,"delta":{%b%b},"finish_reason":null}]}' % (self._role, _signed(signature)[1:]))
        self._role = b""

    @override
    def take(self) -> bytes:
        return self._holder.take()

    @override
    def finish(self, end: ChatEnd, usage: Mapping[str, Any] | None) -> bytes:
        refusal = b"" if end.refusal is None else b'"refusal":' + orjson.dumps(end.refusal)
        delta = (self._role + refusal).removesuffix(b",")
        reason = orjson.dumps(end.finish_reason)
        self._insert(b'{"index":0,"delta":{%b},"finish_reason":%b}]}' % (delta, reason))
        if self._wants_usage and usage is not None:
            self._insert(b'],"usage":%b}' % orjson.dumps(usage))
        self._holder.insert(write_event(DONE))
        return self._holder.take_last()

    @override
    def close(self, usage: Mapping[str, Any] | None) -> None:
        """Each event stands for itself."""

    @override
    def write_error(self, error: ProxyError) -> bytes | None:
        return self._holder.write_error(error)

    def _begin(self, lead: bytes, closing: bytes) -> None:
        role, self._role = self._role, b""
        self._closing = closing
        self._holder.write(b'data: %b{"index":0,"delta":{%b%b' % (self._opening, role, lead))

    def _insert(self, rest: bytes) -> None:
        self._holder.insert(write_event(self._opening + rest))


def _signed(signature: bytes | None) -> bytes:
    """As Google's own chat has it (https://ai.google.dev/gemini-api/docs/thought-signatures)."""
    return b"" if signature is None else b',"extra_content":{"google":{"thought_signature":"%b"}}' % signature
