from __future__ import annotations

import pytest

from proxy.domain.billing.pricing import Quote, Tier
from proxy.domain.billing.settlement import Delivery, Reservation, Served, Settlement, settle
from proxy.domain.errors import (
    ClientGone,
    InternalError,
    InvalidRequest,
    NothingGenerated,
    ProviderRefusal,
    UpstreamError,
    UpstreamMisconfigured,
    UpstreamRateLimit,
    UpstreamTimeout,
    UpstreamTruncated,
    UpstreamUncertain,
    UpstreamUnreachable,
)
from proxy.domain.requests.idempotency import AnswerKeeper, Idempotency, IdempotencyState, KeptAnswer, parse_idempotency

PATH = "/v1/images/generations"
NAME = Idempotency("k" * 64, "b" * 64)
RESERVATION = Reservation(
    id="req_1",
    team="acme",
    key_id="acme_key",
    endpoint=PATH,
    model="acme/image-1",
    quote=Quote(images=1, unit_price=5, units=5, tier=Tier.STANDARD),
    admitted_ms=1,
    remaining_units=None,
    idempotency=NAME,
)


@pytest.mark.parametrize(
    "key", ["a", "x" * 255, "8e03978e-40d5-43dd-bc93-6894a57f9324", '"quoted"', "with blanks in it"]
)
def test_a_key_is_printable_ascii_of_at_most_255_characters(key: str) -> None:
    found = parse_idempotency([key], PATH, b"{}")
    assert len(found.key_sha256) == len(found.body_sha256) == 64
    assert parse_idempotency([f" {key} "], PATH, b"{}") == found


@pytest.mark.parametrize("key", ["", "  ", "x" * 256, "ümlaut", "tab\there"])
def test_any_other_key_is_refused_with_the_header_s_name(key: str) -> None:
    with pytest.raises(InvalidRequest, match="1 to 255 printable ASCII characters") as refused:
        parse_idempotency([key], PATH, b"{}")
    assert refused.value.param == "Idempotency-Key"


def test_two_keys_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="more than one Idempotency-Key"):
        parse_idempotency(["a", "a"], PATH, b"{}")


def test_the_request_is_its_path_and_its_body() -> None:
    first = parse_idempotency(["a"], PATH, b"{}")
    assert parse_idempotency(["a"], PATH, b"{ }").body_sha256 != first.body_sha256
    assert parse_idempotency(["a"], "/v1/images/edits", b"{}").body_sha256 != first.body_sha256
    assert parse_idempotency(["a"], PATH, b"{}", "ann").body_sha256 not in (
        first.body_sha256,
        parse_idempotency(["a"], PATH, b"{}", "bob").body_sha256,
    )
    assert parse_idempotency(["b"], PATH, b"{}").body_sha256 == first.body_sha256
    assert parse_idempotency(["b"], PATH, b"{}").key_sha256 != first.key_sha256


def test_an_answer_is_kept_while_it_is_small() -> None:
    keeper = AnswerKeeper(5)
    assert keeper.body == b""
    keeper.add(b"123")
    keeper.add(b"45")
    assert keeper.body == b"12345"


def test_an_answer_that_grows_too_large_is_not_kept() -> None:
    keeper = AnswerKeeper(5)
    for piece in (b"12345", b"6", b""):
        keeper.add(piece)
    assert keeper.body is None


def ended(error: Exception | None, *, images: int = 0, provider: str = "sample", status: int = 0) -> Settlement:
    delivery = Delivery(images=images, served=Served(provider, status))
    if error is not None:
        delivery.end_by(error)
    return settle(RESERVATION, delivery, error)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (UpstreamUnreachable("x"), 0),
        (ProviderRefusal("x", provider_status=400, provider_code=None, param=None), 400),
        (UpstreamRateLimit("x"), 429),
        (UpstreamError("x"), 500),
        (UpstreamMisconfigured("x"), 401),
    ],
)
def test_a_key_is_free_again_where_nothing_can_have_been_generated(error: Exception, status: int) -> None:
    ending = ended(error, status=status).ending
    assert ending is not None
    assert (ending.state, ending.answer, ending.idempotency) == (IdempotencyState.FREE, None, NAME)


def test_a_key_is_free_again_where_an_error_within_a_2xx_says_that_nothing_was_generated() -> None:
    error = UpstreamError("x")
    error.reported_status = 500
    ending = ended(error, status=200).ending
    assert ending is not None
    assert ending.state is IdempotencyState.FREE


def test_a_key_is_free_again_where_nothing_was_forwarded() -> None:
    ending = ended(ClientGone(), provider="").ending
    assert ending is not None
    assert ending.state is IdempotencyState.FREE


@pytest.mark.parametrize(
    ("error", "images", "status"),
    [
        (UpstreamUncertain("broke"), 0, 0),
        (UpstreamError("broke"), 0, 200),
        (UpstreamTimeout("late"), 0, 0),
        (UpstreamTruncated("cut"), 2, 200),
    ],
)
def test_where_something_may_have_been_generated_no_answer_is_given_again(
    error: UpstreamError, images: int, status: int
) -> None:
    ending = ended(error, images=images, status=status).ending
    assert ending is not None
    assert (ending.state, ending.answer) == (IdempotencyState.GONE, None)


def test_why_nothing_was_generated_is_the_answer() -> None:
    error = NothingGenerated("blocked", reason="SAFETY")
    ending = ended(error, status=200).ending
    assert ending is not None
    assert ending.state is IdempotencyState.DONE
    assert ending.answer is not None
    assert ending.answer.status == 400
    assert b"blocked" in ending.answer.body


@pytest.mark.parametrize("error", [ClientGone(), RuntimeError("a bug")])
def test_where_there_is_no_answer_it_is_gone(error: Exception) -> None:
    ending = ended(error).ending
    assert ending is not None
    assert (ending.state, ending.answer) == (IdempotencyState.GONE, None)
    internal = ended(InternalError("x")).ending
    assert internal is not None
    assert internal.state is IdempotencyState.DONE


@pytest.mark.parametrize("client_gone", [False, True])
def test_a_whole_answer_is_kept_also_where_the_client_has_left(*, client_gone: bool) -> None:
    delivery = Delivery(images=1, served=Served("sample", 200), body=b'{"a":1}')
    delivery.end(complete=True, client_gone=client_gone)
    settlement = settle(RESERVATION, delivery)
    assert settlement.ending is not None
    assert settlement.ending.answer == KeptAnswer(200, b'{"a":1}')
    without = settlement.without_answer().ending
    assert without is not None
    assert (without.state, without.answer) == (IdempotencyState.GONE, None)


def test_a_broken_or_a_large_answer_is_not_kept() -> None:
    for complete in (False, True):
        delivery = Delivery(images=1, served=Served("sample", 200))
        delivery.end(complete=complete)
        ending = settle(RESERVATION, delivery).ending
        assert ending is not None
        assert ending.state is IdempotencyState.GONE
