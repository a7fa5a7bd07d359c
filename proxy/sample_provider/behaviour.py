"""Every way in which the sample provider can behave, and how one request may ask for another way. Pure.

A request overrides the process in two forms, with the same names and values:

- the header ``x-sample-behaviour: delay_ms=50,images=2``
- a prefix of the prompt, ``[sample images=2 delay_ms=50] a blue cube``, which gets through a gateway that forwards no
  unknown headers. It is not drawn. Where both name a field, the prompt wins.

A switch may be written without a value (``malformed``), and ``none`` unsets what is optional. Deviations are names that
commas or blanks separate (``deviate=gzip,cut``).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final

from proxy.sample_provider.deviations import DEVIATIONS

BEHAVIOUR_HEADER: Final = "x-sample-behaviour"

_HOUR_MS: Final = 3_600_000
_MAX_BYTES: Final = 128 * 1024 * 1024
_WORD: Final = re.compile(r"[A-Z_]{1,64}")
_PROMPT_PREFIX: Final = re.compile(r"\s*\[sample(?:\s+([^\]]*))?\]\s*")

Value = int | float | bool | str | tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class Kind:
    """How values of one kind are shown in help, and read from text (``read`` raises `ValueError`)."""

    metavar: str
    read: Callable[[str], Value]


@dataclass(frozen=True, slots=True)
class Flag:
    """What one field of `Behaviour` means, and how it is read from text."""

    explanation: str
    kind: Kind
    per_request: bool = True

    @property
    def is_switch(self) -> bool:
        """Whether the field is simply on or off."""
        return self.kind is _SWITCH


def _whole(least: int, most: int) -> Callable[[str], Value]:
    def read(text: str) -> int:
        if not text.isascii() or not text.isdecimal() or not least <= int(text) <= most:
            raise ValueError(f"must be a whole number from {least} to {most}")
        return int(text)

    return read


def _read_fraction(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise ValueError("must be a number from 0 to 1")
    return value


def _one_of(*words: str) -> Kind:
    def read(text: str) -> str:
        if text not in words:
            raise ValueError("must be " + " or ".join(words))
        return text

    return Kind("|".join(words), read)


def _read_word(text: str) -> str:
    if _WORD.fullmatch(text) is None:
        raise ValueError("must be a word of capital letters and _")
    return text


def _read_switch(text: str) -> bool:
    if text in {"1", "true"}:
        return True
    if text in {"0", "false"}:
        return False
    raise ValueError("must be true or false")


def _read_deviations(text: str) -> tuple[str, ...]:
    names = tuple(filter(None, text.replace(" ", "").split(",")))
    if not set(names) <= DEVIATIONS.keys():
        raise ValueError("must be of " + ", ".join(DEVIATIONS))
    return names


def _optional(kind: Kind) -> Kind:
    return Kind(kind.metavar, lambda text: None if text == "none" else kind.read(text))


_MS: Final = Kind("MS", _whole(0, _HOUR_MS))
_BYTES: Final = Kind("BYTES", _whole(0, _MAX_BYTES))
_STATUS: Final = Kind("STATUS", _whole(300, 599))
_IMAGES: Final = Kind("N", _whole(0, 1000))
_FRACTION: Final = Kind("0..1", _read_fraction)
_SEED: Final = Kind("N", _whole(0, 2**63))
_FORM: Final = _one_of("url", "b64_json")
_FORMAT: Final = _one_of("png", "jpeg", "webp")
_PLACE: Final = _one_of("images", "content", "text")
_EVENTS: Final = Kind("N", _whole(0, 1000))
_EDGE: Final = Kind("PX", _whole(1, 4096))
_WORD_KIND: Final = Kind("WORD", _read_word)
_KEY: Final = Kind("KEY", str)
_SWITCH: Final = Kind("", _read_switch)
_DEVIATIONS: Final = Kind("NAME[,NAME...]", _read_deviations)


def _flag(explanation: str, kind: Kind, *, per_request: bool = True) -> Mapping[str, Flag]:
    return {"flag": Flag(explanation, kind, per_request)}


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How to answer. Fields that end in ``_ms`` are milliseconds; those about the body count its bytes.

    By default: at once, in one piece, with as many images as were asked for, as URLs, to any bearer token.
    """

    default_n: int = field(default=1, metadata=_flag("Images for a request that names no n.", _IMAGES))
    answer: str = field(default="url", metadata=_flag("The form of images, where the request does not say.", _FORM))
    api_key: str | None = field(
        default=None, metadata=_flag("The one key accepted. [default: any]", _KEY, per_request=False)
    )
    delay_ms: int = field(default=0, metadata=_flag("Wait before the answer's first byte.", _MS))
    first_byte_delay_ms: int = field(
        default=0, metadata=_flag("Wait between the headers and the body's first byte.", _MS)
    )
    chunk_delay_ms: int = field(
        default=0, metadata=_flag("Pause between chunks of the body; of 128 KiB without --chunk-bytes.", _MS)
    )
    chunk_bytes: int = field(
        default=0, metadata=_flag("Write the body in chunks of this size, with no Content-Length. [default: 0]", _BYTES)
    )
    failure_rate: float = field(default=0.0, metadata=_flag("Share of requests that fail.", _FRACTION))
    failure_status: int = field(default=500, metadata=_flag("The status of those that fail.", _STATUS))
    seed: int = field(
        default=0, metadata=_flag("Chooses which fail; the same seed, the same ones.", _SEED, per_request=False)
    )
    status: int | None = field(
        default=None,
        metadata=_flag("Always answer with this status, as an error in the dialect's form.", _optional(_STATUS)),
    )
    images: int | None = field(
        default=None, metadata=_flag("Return this many images, whatever was asked.", _optional(_IMAGES))
    )
    truncate_after: int | None = field(
        default=None, metadata=_flag("Drop the connection after so much of the body.", _optional(_BYTES))
    )
    stall_after: int | None = field(
        default=None, metadata=_flag("Send nothing more after so much of the body.", _optional(_BYTES))
    )
    image_bytes: int | None = field(
        default=None,
        metadata=_flag(
            "Make each image b64_json of so much filler, not a picture, unless url is asked for. Rounded up to a "
            "multiple of 4, as base64 is.",
            _optional(_BYTES),
        ),
    )
    malformed: bool = field(default=False, metadata=_flag("Answer 200 with JSON that is cut off.", _SWITCH))
    endless: bool = field(default=False, metadata=_flag("Never end the body: one giant b64_json.", _SWITCH))
    drop_connection: bool = field(
        default=False, metadata=_flag("Close the connection after reading the request, without an answer.", _SWITCH)
    )
    picture_format: str | None = field(
        default=None, metadata=_flag("Draw in this format, whatever was asked.", _optional(_FORMAT))
    )
    longest_edge_px: int | None = field(
        default=None,
        metadata=_flag("Draw pictures smaller than asked, no edge longer than this.", _optional(_EDGE)),
    )
    event_delay_ms: int = field(default=0, metadata=_flag("Silence before each event of a stream but the first.", _MS))
    stall_after_events: int | None = field(
        default=None, metadata=_flag("Send nothing more after so many events of a stream.", _optional(_EVENTS))
    )
    end_after_events: int | None = field(
        default=None, metadata=_flag("End a stream in good order after so many events.", _optional(_EVENTS))
    )
    error_after_events: int | None = field(
        default=None, metadata=_flag("Send an error event after so many events, and end.", _optional(_EVENTS))
    )
    comments: bool = field(default=False, metadata=_flag("Send a comment before each event of a stream.", _SWITCH))
    done: bool = field(default=False, metadata=_flag("End every stream with [DONE]; chat's always ends so.", _SWITCH))
    other_form: bool = field(
        default=False, metadata=_flag("Answer in one piece where a stream was asked for, and the other way.", _SWITCH)
    )
    image_place: str = field(
        default="images",
        metadata=_flag("Where chat answers hold images: beside the content, in it, or in its text.", _PLACE),
    )
    repeats: int = field(default=0, metadata=_flag("Send each image of a chat stream so many times more.", _EVENTS))
    thoughts: int = field(default=0, metadata=_flag("Gemini's thought images before the answer.", _EVENTS))
    finish_reason: str | None = field(
        default=None,
        metadata=_flag("Gemini's finishReason; any but STOP comes without an image.", _optional(_WORD_KIND)),
    )
    block_reason: str | None = field(
        default=None,
        metadata=_flag("Gemini's promptFeedback.blockReason; the answer has no candidates.", _optional(_WORD_KIND)),
    )
    deviate: tuple[str, ...] = field(
        default=(), metadata=_flag("Deviate from the provider's own pages, in each way named; see below.", _DEVIATIONS)
    )


FLAGS: Final[Mapping[str, Flag]] = {item.name: item.metadata["flag"] for item in fields(Behaviour)}


class UnknownBehaviour(ValueError):
    """An override that names no field of `Behaviour`, or a value that the field cannot have."""


def parse_overrides(text: str) -> dict[str, Value]:
    """The fields that ``name=value name=value`` sets, separated by blanks or commas."""
    overrides: dict[str, Value] = {}
    for item in text.replace(",", " ").split():
        name, equals, value = item.partition("=")
        if "deviate" in overrides and item in DEVIATIONS:
            # The blank or comma before it separated two deviations.
            overrides["deviate"] = (*_names_in(overrides["deviate"]), item)
            continue
        flag = FLAGS.get(name)
        if flag is None or not flag.per_request:
            raise UnknownBehaviour(f"no behaviour of a request is called {name!r}")
        try:
            overrides[name] = True if flag.is_switch and not equals else flag.kind.read(value)
        except ValueError as error:
            raise UnknownBehaviour(f"{name} {error}") from error
    return overrides


def _names_in(value: Value) -> tuple[str, ...]:
    return value if isinstance(value, tuple) else ()


def split_prompt(prompt: str) -> tuple[str, str]:
    """The text of the overrides that a prompt begins with (empty without any), and the prompt after them."""
    prefix = _PROMPT_PREFIX.match(prompt)
    if prefix is None:
        return "", prompt
    return prefix[1] or "", prompt[prefix.end() :]


def with_overrides(behaviour: Behaviour, text: str) -> Behaviour:
    """The behaviour for one request that overrides some fields, as `parse_overrides` reads them."""
    # The values were read by the very flags of the fields that they replace.
    changes: dict[str, Any] = dict(parse_overrides(text))
    return replace(behaviour, **changes) if changes else behaviour
