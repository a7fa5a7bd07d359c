from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from proxy.domain.billing.offers import Offer, as_taken, check_takes, offers_instead
from proxy.domain.billing.pricing import Terms, price
from proxy.domain.billing.settlement import Delivery, Outcome, settle
from proxy.domain.catalog import Model
from proxy.domain.errors import InvalidRequest
from proxy.domain.requests.chat import ChatRequest, parse_chat_request
from proxy.domain.requests.edit import parse_edit_request
from proxy.domain.requests.image import ImageRequest, parse_image_request
from tests.domain.samples import make_model, make_reservation

MODEL = make_model(id="a", default_n=2)


def request(**fields: Any) -> ImageRequest:
    return parse_image_request({"model": "a", "prompt": "a cube", **fields})


def offers(asked: ImageRequest | ChatRequest, *others: Model) -> list[Offer]:
    return [*offers_instead(asked, MODEL, others, Terms(kept_answer_bytes=7), by_delivered_size=False)]


def test_each_is_asked_for_what_the_model_would_make_and_costs_its_own_price() -> None:
    cheap, dear = make_model("0.5", id="b"), make_model("3", id="c", four_k_long_edge=1024)
    first, second = offers(request(size="1024x1024", quality="high"), cheap, dear)
    assert (first.model, first.quote.images, first.quote.unit_price, first.quote.units) == (cheap, 2, 2_500, 5_000)
    assert (second.quote.tier, second.quote.units) == ("4k", 2 * 37_500)
    assert [(offer.asked.model, offer.asked.n, offer.asked.fields["n"]) for offer in (first, second)] == [
        ("b", 2, 2), ("c", 2, 2),
    ]  # fmt: skip
    assert first.terms.kept_answer_bytes == 7


def test_a_number_that_was_asked_for_stays_and_one_that_is_the_default_is_not_written() -> None:
    (asked,) = offers(request(n=3), make_model(id="b"))
    assert (asked.asked.n, asked.quote.images) == (3, 3)
    (left_out,) = offers(request(), make_model(id="b", default_n=2))
    assert (left_out.asked.n, "n" in left_out.asked.fields, left_out.quote.images) == (None, False, 2)


def test_who_cannot_take_the_request_is_left_out() -> None:
    asked = request(size="1024x1024", n=3, stream=True, new=1)
    taking = make_model(id="b", unknown_parameters="drop")
    cases: tuple[dict[str, Any], ...] = (
        {"sizes": ("2K",)}, {"max_n": 2}, {"parameters": frozenset({"n"})}, {"unknown_parameters": "refuse"},
    )  # fmt: skip
    for fields in cases:
        refusing = make_model(**{"id": "c", "unknown_parameters": "drop", **fields})
        assert [offer.model for offer in offers(asked, refusing, taking)] == [taking]
    edit = parse_edit_request({"model": "a", "prompt": "x", "images": [{"image_url": "https://x.example/1.png"}]})
    assert offers(edit, make_model(id="b")) == []
    chat = parse_chat_request({"model": "a", "messages": [{"role": "user", "content": "x"}]})
    assert [offer.model.id for offer in offers(chat, make_model(id="b", chats=False), make_model(id="c"))] == ["c"]


multipliers = st.decimals("0", "100", places=3)


@given(multipliers, st.integers(1, 10), st.integers(0, 30), st.sampled_from(["4K", "1024x1024", None]))
def test_what_another_model_makes_is_charged_at_its_price_out_of_what_is_held(
    multiplier: Any, n: int, made: int, size: str | None
) -> None:
    asked = request(n=n, size=size)
    check_takes(asked, MODEL)
    (offer,) = offers(asked, make_model(multiplier, id="b"))
    own = price(as_taken(asked, MODEL), MODEL)
    held = max(own.units, offer.quote.units)
    reservation = make_reservation(replace(own, units=held)).made_by("b", offer.quote)
    delivery = Delivery()
    delivery.ask_instead(offer)
    delivery.images, delivery.outcome, delivery.ended = made, Outcome.DELIVERED, True
    settlement = settle(reservation, delivery)
    assert (settlement.reservation.model, settlement.reservation.asked_model) == ("b", "acme/image-1")
    assert settlement.charged_units == made * offer.quote.unit_price
    assert settlement.charged_units - settlement.overage_units <= held
    assert held == settlement.charged_units - settlement.overage_units + settlement.released_units


def test_a_request_that_costs_more_than_can_be_charged_there_is_not_offered(monkeypatch: Any) -> None:
    def refuse(*_arguments: object) -> None:
        raise InvalidRequest("too dear")

    monkeypatch.setattr("proxy.domain.billing.offers.price", refuse)
    assert offers(request(), make_model(id="b")) == []
