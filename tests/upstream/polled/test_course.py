"""A task's course by what the looks show: only its provider's word ends it."""

from __future__ import annotations

import orjson
import pytest

from proxy.domain.billing.pending import PendingTask
from proxy.domain.errors import (
    ProviderRefusal,
    ProxyError,
    TaskUnknown,
    UpstreamError,
    UpstreamMisconfigured,
    UpstreamUncertain,
)
from proxy.upstream.dialects.polled.bfl import BlackForestLabsDialect
from proxy.upstream.dialects.polled.course import UNKNOWN_LIMIT, WAIT_LIMIT_S, Course

IMAGE = "https://delivery-eu1.bfl.ai/results/1/sample.jpeg?sig=a%2Bb"


def course() -> Course:
    return Course(BlackForestLabsDialect(), PendingTask("bfl", "https://api.bfl.ai/1"), first_s=0.5, most_s=3)


def saw(made: Course, http: int = 200, retry_after_s: int | None = None, **answer: object) -> tuple[str, ...] | None:
    return made.saw(http, {}, orjson.dumps(answer), retry_after_s)


def test_pauses_grow_to_their_end() -> None:
    made, waits = course(), []
    for _ in range(8):
        waits.append(made.wait_s)
        assert saw(made, status="Pending") is None
    assert waits == [0.5, 0.75, 1.125, 1.6875, 2.53125, 3, 3, 3]


def test_a_wait_that_the_provider_asks_for_counts_up_to_a_limit() -> None:
    made = course()
    saw(made, 429, 20)
    assert made.wait_s == 20
    saw(made, 503, 86_400)
    assert made.wait_s == WAIT_LIMIT_S
    saw(made, 200)
    assert made.wait_s < 3


def test_it_ends_with_its_image() -> None:
    assert saw(course(), status="Ready", result={"sample": IMAGE}) == (IMAGE,)


@pytest.mark.parametrize("result", [None, {}, {"sample": None}, {"sample": "javascript:1"}, {"sample": {}}, [1], "x"])
def test_it_may_end_without_one(result: object) -> None:
    assert saw(course(), status="Ready", result=result) == ()


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 520])
def test_a_look_that_fails_shows_nothing(status: int) -> None:
    made = course()
    for _ in range(50):
        assert made.saw(status, {}, b"<html>", None) is None


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"null", b'{"status":'])
def test_nor_does_one_that_cannot_be_read(body: bytes) -> None:
    made = course()
    for _ in range(50):
        assert made.saw(200, {}, body, None) is None


def test_a_task_has_to_be_missed_several_times_in_a_row() -> None:
    made = course()
    for _ in range(UNKNOWN_LIMIT - 1):
        assert saw(made, 404) is None
    assert saw(made, 200, status="Pending") is None
    for _ in range(UNKNOWN_LIMIT - 1):
        assert saw(made, 200, status="Task not found") is None
    with pytest.raises(TaskUnknown):
        saw(made, 404)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (302, UpstreamUncertain), (400, ProviderRefusal), (401, UpstreamMisconfigured), (403, UpstreamMisconfigured),
        (422, ProviderRefusal),
    ],
)  # fmt: skip
def test_other_answers_end_it(status: int, kind: type[ProxyError]) -> None:
    with pytest.raises(kind):
        saw(course(), status, detail="no")


@pytest.mark.parametrize("word", ["Request Moderated", "Content Moderated"])
def test_moderation_is_a_refusal(word: str) -> None:
    with pytest.raises(ProviderRefusal) as refused:
        saw(course(), status=word)
    assert refused.value.wire_code == word.lower().replace(" ", "_")


def test_a_failure_is_the_providers_own_word() -> None:
    with pytest.raises(UpstreamError) as failed:
        saw(course(), status="Error", details={"message": "out of memory"})
    assert (failed.value.retryable, failed.value.reported_status) == (True, 500)
    assert "out of memory" in failed.value.message
