"""Why an answer to a request for images holds none, in the words of any provider."""

from __future__ import annotations

from collections.abc import Mapping

import orjson

from proxy.domain.answers.answer import ErrorReader
from proxy.domain.answers.images.reader import Reading
from proxy.domain.errors import NothingGenerated, ProxyError, UpstreamError, UpstreamUncertain
from proxy.domain.parsing.json_shapes import text_of
from proxy.upstream.errors.failures import clean

GOOD_ENDS = frozenset({"STOP", "MAX_TOKENS", "FINISH_REASON_UNSPECIFIED", "stop", "length", "end_turn", "tool_calls"})
"""What providers call an end that is no refusal."""

BROKEN_ENDS = frozenset({"error", "failed", "internal_error", "inference error"})
"""Ends that are the provider's own failure."""

WITHHELD = "content_filtered"
"""The code of an image that may not be seen."""

NO_IMAGE = "no_image"
"""The code where a provider has no word of its own for it."""

_ERROR_WORDS = ("message", "detail", "code", "status")


def reading_of(read_error: ErrorReader) -> Reading:
    """How to read an answer whose errors ``read_error`` understands."""

    def refuse(notes: Mapping[str, bytes]) -> ProxyError | None:
        if withheld := text_of(notes.get("withheld")):
            return _withheld(withheld)
        reason = text_of(notes.get("block")) or text_of(notes.get("finish"))
        why = text_of(notes.get("why")) or text_of(notes.get("text"))
        if not (reason or why) and "failure" in notes:
            return _without_certainty(read_error(notes["failure"]), notes)
        if not (reason or why) and any(name in notes for name in _ERROR_WORDS):
            words = {name: orjson.Fragment(notes[name]) for name in _ERROR_WORDS if name in notes}
            return _without_certainty(read_error(orjson.dumps(words)), notes)
        if reason.lower() in BROKEN_ENDS:
            return UpstreamError(f"The provider failed: {clean(why) or clean(reason)}")
        is_good = not reason or reason in GOOD_ENDS
        if is_good and not why:
            return None
        said = "" if is_good else f": {clean(reason)}"
        return NothingGenerated(
            f"The provider made no image{said}. {clean(why)}".strip(), reason=NO_IMAGE if is_good else reason
        )

    return Reading(read_error, refuse)


def _withheld(reason: str) -> ProxyError:
    if reason.lower() in BROKEN_ENDS:
        return UpstreamError(f"The provider failed: {clean(reason)}")
    return NothingGenerated(f"The provider made no image that it may show. {clean(reason)}", reason=WITHHELD)


def _without_certainty(error: ProxyError, notes: Mapping[str, bytes]) -> ProxyError:
    """A 2xx that calls nothing an error, and names no status of 500 or more, may be of images in an unknown place."""
    names_failure = any(notes.get(name, b"").strip(b'"').startswith(b"5") for name in ("code", "status"))
    if type(error) is not UpstreamError or names_failure:
        return error
    uncertain = UpstreamUncertain(error.message)
    uncertain.provider_error, uncertain.reported_status = error.provider_error, error.reported_status
    return uncertain
