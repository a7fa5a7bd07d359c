"""What is to be seen of an answer on its way to a client, however its body is cut."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import orjson

from proxy.domain.answers.answer import Answer
from proxy.domain.errors import ProxyError, UpstreamError
from proxy.domain.parsing.image_header import Size
from proxy.domain.parsing.json_tokens import MalformedResponse


@dataclass(frozen=True, slots=True)
class Passed:
    """``error`` is what ended it; ``told`` all that the client has of it then, and ``closed`` a whole answer of it."""

    output: bytes
    images: int
    usage: bytes | None
    whole: bool
    error: str | None = None
    sizes: tuple[Size | None, ...] | None = field(default=None, compare=False)
    told: bytes = field(default=b"", compare=False)
    closed: bytes | None = field(default=None, compare=False)


def pass_on(answer: Answer, pieces: Iterable[bytes]) -> Passed:
    """As the relay does it."""
    output = b""
    try:
        for piece in pieces:
            output += answer.feed(piece)
        output += answer.finish()
    except (MalformedResponse, ProxyError) as error:
        answer.break_off()
        end = answer.close()
        closed = None if end is None else output + end
        told = output + (answer.write_error(error if isinstance(error, ProxyError) else UpstreamError("")) or b"")
        return Passed(b"", answer.images, answer.usage, False, str(error), tuple(answer.sizes), told, closed)
    return Passed(output, answer.images, answer.usage, answer.whole, sizes=tuple(answer.sizes))


def passed_however_cut(make: Callable[[], Answer], body: bytes) -> Passed:
    """The same for the body as a whole, byte by byte, and cut in two at every position."""
    whole = pass_on(make(), [body])
    assert len(whole.sizes or ()) == whole.images
    cuts = [[body[at : at + 1] for at in range(len(body))], *([body[:at], body[at:]] for at in range(len(body) + 1))]
    for pieces in cuts:
        seen = pass_on(make(), pieces)
        assert (seen, seen.sizes) == (whole, whole.sizes)
    return whole


def events_of(stream: bytes) -> Iterator[dict[str, Any]]:
    """The events of a stream whose every event is one line of JSON; ``[DONE]`` is left out."""
    *events, rest = stream.split(b"\n\n")
    assert rest == b""
    for event in events:
        data = [line.removeprefix(b"data: ") for line in event.split(b"\n") if line.startswith(b"data: ")]
        assert len(data) == 1
        if data[0] != b"[DONE]":
            yield orjson.loads(data[0])


def check_that_thirty_megabytes_flow(answer: Answer, *, held_pieces: int = 0) -> None:
    """An image whose string has begun is passed on while it comes, all but ``held_pieces`` of 64 KiB."""
    piece = b"A" * 65_536
    tracemalloc.start()
    try:
        sent = sum(len(answer.feed(piece)) for _ in range(460))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1_000_000
    assert sent >= (460 - held_pieces) * 65_536
