"""What a provider says of an error, in whichever form it says it. Pure; nothing is cleaned here.

Read are OpenAI's ``{"error": {"message", "type", "param", "code"}}``, Google's ``details``, OpenRouter's ``metadata``,
FastAPI's ``detail``, arrays of errors, errors within errors, plain text, and the title of a page of HTML.
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import orjson

from proxy.domain.headers import duration_s

BOM = b"\xef\xbb\xbf"
DEPTH_LIMIT = 6
ITEMS_LIMIT = 8
TEXT_LENGTH_LIMIT = 4_096
"""Characters that are kept of one text; it is cleaned, and cut again, before anybody reads it."""

_MESSAGES = (
    "message", "messages", "msg", "error_message", "errormessage", "error_msg", "error_description", "status_msg",
    "faultstring", "failure_reason", "description", "text",
)  # fmt: skip
_WORDS = ("code", "status", "statuscode", "status_code", "error_code", "errorcode", "reason", "__type")
_KINDS = ("type", "error_type", "errortype", "name")
_WITHIN = (
    "error", "errors", "err", "detail", "details", "innererror", "inner_error", "fault", "base_resp", "response",
    "responsemetadata",
)  # fmt: skip
"""Names of members, in small letters; some providers begin them with a capital."""

_NAMES = frozenset({*_MESSAGES, *_WORDS, *_KINDS, *_WITHIN, "param", "loc", "title", "metadata"})
_PLACES = frozenset({"body", "query", "path", "header", "json"})
_SAYS_NOTHING = frozenset({"", "error", "failed", "fail", "failure", "none", "null", "undefined", "exception", "false"})
_GOOGLE = "type.googleapis.com/google.rpc."
_STATUS_PHRASES = frozenset(status.phrase.lower() for status in HTTPStatus)
_GENERIC = frozenset(
    {
        "request contains an invalid argument", "precondition check failed", "resource has been exhausted",
        "resource has been exhausted (e.g. check quota)", "internal error encountered", "invalid request",
        "the request is invalid", "the request failed", "request failed", "unknown error",
    }
)  # fmt: skip
"""What Google and others say where only the details say what is wrong; without its full stop."""


_GOOGLE_STATUSES = frozenset(
    {
        "cancelled", "unknown", "invalid argument", "deadline exceeded", "not found", "already exists",
        "permission denied", "resource exhausted", "failed precondition", "aborted", "out of range", "unimplemented",
        "internal", "unavailable", "data loss", "unauthenticated",
    }
)  # fmt: skip
_FAILURES = frozenset({"PreconditionFailure", "QuotaFailure"})

_begins = re.compile(
    rb'(?:\xef\xbb\xbf)?\s*(?:event:\s*error\b|(?:data:\s*)?\[?\s*\{\s*(?:"error"\s*:\s*[{"\[]|"type"\s*:\s*"error"))'
)
_word = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_title = re.compile(r"<(?:title|message)\b[^<>]{0,200}>([^<]{1,300})<", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ErrorReport:
    """What a provider says of an error, uncleaned.

    ``code`` is its one word for the error; ``words`` are all of them, the types and reasons too, as it spells them.
    ``status`` is the HTTP status (400 to 599) that the error itself names. ``is_flagged`` says that the content is at
    fault. ``retry_after_s`` is the wait that it asks for in its body, in seconds.
    """

    message: str = ""
    code: str | None = None
    param: str | None = None
    status: int | None = None
    words: tuple[str, ...] = ()
    is_flagged: bool = False
    retry_after_s: float | None = None

    @property
    def says_anything(self) -> bool:
        """Whether it is the report of an error at all."""
        return bool(self.message or self.words or self.status or self.is_flagged)


def begins_as_error(body: bytes) -> bool:
    """Whether the first that a body says, as JSON or in an event, is an error."""
    return _begins.match(body) is not None


def read_report(body: bytes) -> ErrorReport:
    """The report in the body of an answer, which may be cut short; an empty one where nothing can be read of it."""
    reading = _Reading()
    body = body.removeprefix(BOM).strip()
    try:
        reading.read(orjson.loads(body), 0)
    except orjson.JSONDecodeError:
        try:
            text = body.decode()
        except UnicodeDecodeError:
            return ErrorReport()
        # JSON that is cut short, or broken, is no text for people.
        if text[:1] not in ("{", "["):
            reading.read_text(_data_of_events(text), 0)
    return reading.report()


@dataclass(slots=True)
class _Reading:
    """What has been found so far: of each, what stands further out is kept."""

    code: str | None = None
    param: str | None = None
    status: int | None = None
    retry_after_s: float | None = None
    messages: list[str] = field(default_factory=list)
    details: list[str] = field(default_factory=list)
    """What is told where no message says more than that something is wrong."""

    title: str = ""
    words: list[str] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    is_flagged: bool = False
    is_anothers: bool = False
    """Whether it is the report of somebody further on, whose words say nothing about the gateway's own account."""

    def report(self) -> ErrorReport:
        """All of it together."""
        messages = self.messages
        if all(map(_is_generic, messages)):
            messages = [*messages, *self.details]
        message = "; ".join(dict.fromkeys(messages)) or self.title
        if self.reasons:
            message = f"{message} ({', '.join(dict.fromkeys(self.reasons))})".strip()
        words = tuple(self.words)
        return ErrorReport(message, self.code, self.param, self.status, words, self.is_flagged, self.retry_after_s)

    def read(self, value: object, depth: int) -> None:
        """Read a value that stands where an error does."""
        if depth > DEPTH_LIMIT:
            return
        if isinstance(value, str):
            self.read_text(value, depth)
        elif isinstance(value, list):
            for item in value[:ITEMS_LIMIT]:
                self.read(item, depth + 1)
        elif isinstance(value, dict):
            self._read_object(value, depth)

    def read_text(self, text: str, depth: int) -> None:
        """A text, or JSON or a page that stands in one."""
        text = text.strip()
        if text[:1] in ("{", "["):
            try:
                self.read(orjson.loads(text), depth + 1)
            except orjson.JSONDecodeError:
                self._say(text)
        elif text[:1] == "<":
            found = _title.search(text[: 16 * TEXT_LENGTH_LIMIT])
            self._say("" if found is None else " ".join(html.unescape(found[1]).split()))
        else:
            self._say(text)

    def _say(self, text: str) -> None:
        if text and len(self.messages) < ITEMS_LIMIT:
            self.messages.append(text[:TEXT_LENGTH_LIMIT])

    def _note_detail(self, text: str) -> None:
        if text and len(self.details) < ITEMS_LIMIT:
            self.details.append(text[:TEXT_LENGTH_LIMIT])

    def _read_object(self, given: Mapping[str, Any], depth: int) -> None:
        members = {name.lower(): value for name, value in given.items()}
        for name in _WORDS:
            self._read_word(members.get(name), is_code=True)
        for name in _KINDS:
            self._read_word(members.get(name), is_code=False)
        if isinstance(reason := members.get("reason"), str) and not _word.fullmatch(reason):
            self._say(reason)
        if not self._read_place(members):
            for name in _MESSAGES:
                self.read(members.get(name), depth + 1)
        if isinstance(title := members.get("title"), str):
            self.title = self.title or title[:TEXT_LENGTH_LIMIT]
        self._read_within(members, depth)

    def _read_within(self, members: Mapping[str, Any], depth: int) -> None:
        """What stands further in."""
        for name in _WITHIN:
            value = members.get(name)
            if isinstance(value, list) and any(_kind_of_google(item) for item in value):
                self._read_details(value)
            elif isinstance(value, dict) and value and _NAMES.isdisjoint(key.lower() for key in value):
                self._read_fields(value)
            else:
                self.read(value, depth + 1)
        if isinstance(metadata := members.get("metadata"), dict):
            self._read_metadata(metadata, depth)

    def _read_word(self, value: object, *, is_code: bool) -> None:
        if isinstance(value, str):
            value = value.strip()
            if value.isascii() and value.isdigit() and len(value) <= 9:  # noqa: PLR2004 - no status is as long
                value = int(value)
        if type(value) is int:
            if HTTPStatus.BAD_REQUEST <= value <= 599:  # noqa: PLR2004 - the last of HTTP's statuses
                self.status = self.status or value
            elif value > 0:
                self._add_word(str(value))
        elif isinstance(value, str) and _word.fullmatch(value) and value.lower() not in _SAYS_NOTHING:
            self._add_word(value)
            if is_code and self.code is None:
                self.code = value

    def _add_word(self, word: str) -> None:
        if not self.is_anothers and len(self.words) < 4 * ITEMS_LIMIT:
            self.words.append(word)

    def _read_place(self, members: Mapping[str, Any]) -> bool:
        """The field at fault: ``param``, or FastAPI's ``loc`` with the ``msg`` that does not name it; true for that."""
        place, where, said = members.get("param"), members.get("loc"), members.get("msg")
        is_fastapis = False
        if isinstance(where, list) and isinstance(said, str):
            is_fastapis = True
            place = _path(where)
            self._say(f"{place}: {said}" if place else said)
        if isinstance(place, str) and place.lower() not in _SAYS_NOTHING:
            self.param = self.param or place
        return is_fastapis

    def _read_fields(self, fields: Mapping[str, Any]) -> None:
        """``{"size": ["is unknown"]}``: what is wrong with each field."""
        for name, said in list(fields.items())[:ITEMS_LIMIT]:
            for text in said[:ITEMS_LIMIT] if isinstance(said, list) else [said]:
                if isinstance(text, str):
                    self.param = self.param or name
                    self._say(f"{name}: {text}")

    def _read_details(self, details: Sequence[Any]) -> None:
        """Google's (google.rpc.LocalizedMessage and others, https://google.aip.dev/193#statusdetails)."""
        for detail in details[:ITEMS_LIMIT]:
            kind = _kind_of_google(detail)
            if kind == "ErrorInfo" and isinstance(reason := detail.get("reason"), str) and _word.fullmatch(reason):
                self._add_word(reason)
                self.reasons.append(reason)
            elif kind == "RetryInfo" and isinstance(delay := detail.get("retryDelay"), str):
                self.retry_after_s = duration_s(delay)
            elif kind == "BadRequest" and isinstance(violations := detail.get("fieldViolations"), list):
                for violation in filter(_is_object, violations[:ITEMS_LIMIT]):
                    self._say(_joined(violation.get("field"), violation.get("description")))
            elif kind == "LocalizedMessage":
                self._note_detail(_joined(detail.get("message")))
            elif kind in _FAILURES and isinstance(violations := detail.get("violations"), list):
                for violation in filter(_is_object, violations[:ITEMS_LIMIT]):
                    self._read_word(violation.get("type"), is_code=False)
                    self._note_detail(_joined(violation.get("description")) or _joined(violation.get("subject")))

    def _read_metadata(self, metadata: Mapping[str, Any], depth: int) -> None:
        """OpenRouter's: what the provider behind it said, and why the content was flagged; never who that is."""
        reasons = metadata.get("reasons")
        if isinstance(reasons, list) and reasons:
            self.is_flagged = True
            self.reasons += [reason[:64] for reason in reasons[:ITEMS_LIMIT] if isinstance(reason, str)]
        status, self.is_anothers = self.status, True
        self.read(metadata.get("raw"), depth + 1)
        self.status, self.is_anothers = status, False


def _kind_of_google(detail: object) -> str:
    kind = detail.get("@type") if isinstance(detail, dict) else None
    return kind.removeprefix(_GOOGLE) if isinstance(kind, str) and kind.startswith(_GOOGLE) else ""


def _is_object(value: object) -> bool:
    return isinstance(value, dict)


def _joined(*texts: object) -> str:
    return ": ".join(text.strip() for text in texts if isinstance(text, str) and text.strip())


def _is_generic(message: str) -> bool:
    """Whether it says no more than its status does."""
    plain = message.strip().rstrip(".!").lower()
    words = plain.replace("_", " ")
    return plain in _SAYS_NOTHING or plain in _GENERIC or words in _STATUS_PHRASES or words in _GOOGLE_STATUSES


def _path(where: Sequence[object]) -> str:
    """``["body", "images", 0, "url"]`` is ``images[0].url``."""
    if where and isinstance(where[0], str) and where[0] in _PLACES:
        where = where[1:]
    path = "".join(f"[{part}]" if type(part) is int else f".{part}" for part in where[:ITEMS_LIMIT])
    return path.removeprefix(".")


def _data_of_events(text: str) -> str:
    """What stands in an event stream; any other text as it is."""
    if not text.startswith(("data:", "event:", "id:", ":")):
        return text
    lines = [line.removeprefix("data:").strip() for line in text.splitlines() if line.startswith("data:")]
    return next((line for line in lines if line != "[DONE]"), "")
