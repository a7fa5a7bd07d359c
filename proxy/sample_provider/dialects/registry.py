"""What distinguishes the dialects of the sample provider, and what streams of all of them may do. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final

from proxy.sample_provider.behaviour import Behaviour
from proxy.sample_provider.deviations import deviating_events
from proxy.sample_provider.dialects import chat, gemini, openai_events, wire
from proxy.sample_provider.dialects.wire import Order

Answer = Callable[[Order, Behaviour, bytes, int], list[bytes]]
Events = Callable[[Order, Behaviour, bytes, int], Iterator[list[bytes]]]

MALFORMED_EVENT: Final = [b'data: {"type":"image_generation.completed","b64_json":}\n\n']
_COMMENT: Final = b": SAMPLE PROCESSING\n\n"
_DONE: Final = b"data: [DONE]\n\n"


@dataclass(frozen=True, slots=True)
class Dialect:
    """How one dialect answers: whole, in events (of base64 text and Unix time in seconds), and with errors."""

    answer: Answer
    events: Events
    error: Callable[[int, str, str], bytes]
    failure: Callable[[int], bytes]
    error_event: Callable[[], list[bytes]]
    always_done: bool = False


def _openai_answer(order: Order, _behaviour: Behaviour, image: bytes, created_s: int) -> list[bytes]:
    return wire.base64_answer(order, image, created_s)


def _openai(kind: str) -> Dialect:
    return Dialect(
        answer=_openai_answer,
        events=partial(openai_events.events, kind),
        error=lambda status, code, message: wire.Refusal(status, code, message).body(),
        failure=wire.failure_body,
        error_event=openai_events.error_event,
    )


GENERATIONS: Final = _openai("image_generation")
EDITS: Final = _openai("image_edit")
CHAT: Final = Dialect(chat.answer, chat.events, chat.error, chat.failure, chat.error_event, always_done=True)
GEMINI: Final = Dialect(gemini.answer, gemini.events, gemini.error, gemini.failure, gemini.error_event)


def stream_of(
    dialect: Dialect, order: Order, behaviour: Behaviour, image: bytes, created_s: int
) -> Iterator[list[bytes]]:
    """The events of an answer, as far and as well as the behaviour lets them come."""
    if behaviour.malformed:
        return iter([MALFORMED_EVENT])
    events = _events(dialect, order, behaviour, image, created_s)
    if not behaviour.deviate:
        return events
    return deviating_events(events, behaviour.deviate, dialect.error_event)


def _events(
    dialect: Dialect, order: Order, behaviour: Behaviour, image: bytes, created_s: int
) -> Iterator[list[bytes]]:
    sent = 0
    for event in dialect.events(order, behaviour, image, created_s):
        if sent == behaviour.error_after_events:
            yield dialect.error_event()
            return
        if sent in (behaviour.end_after_events, behaviour.stall_after_events):
            return
        yield [_COMMENT, *event] if behaviour.comments else event
        sent += 1
    if sent == behaviour.error_after_events:
        yield dialect.error_event()
    elif behaviour.done or dialect.always_done:
        yield [_DONE]
