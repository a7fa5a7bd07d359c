"""What a request would reserve, and what it would be charged for the answers that may come: for people who ask."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import orjson

from proxy.domain.billing.pricing import Quote, agree, price
from proxy.domain.billing.settlement import Delivery, Reservation, settle
from proxy.domain.catalog import Model
from proxy.domain.money import Money
from proxy.domain.prices.settling import SettleBy
from proxy.domain.prices.table import DEFAULT, PriceTable, Rule, Wanted
from proxy.domain.requests.chat import ChatRequest, check_chat, parse_chat_request
from proxy.domain.requests.image import ImageRequest, Task, check_n, parse_image_request
from proxy.domain.requests.inputs import Inputs, Reference
from proxy.domain.requests.size_words import check_sizes
from proxy.domain.requests.sizes import agree_on_size
from proxy.domain.usage import Tokens

Asked = ImageRequest | ChatRequest
SAMPLE_TOKENS = Tokens(input_text=50, output_image=4_160)
"""Of one image in a high quality, as an example."""

SAMPLE_COST_USD = "0.04"
PLAIN_SIZE = "1024x1024"
_TASKS = {"generation": Task.GENERATION, "edit": Task.EDIT, "variation": Task.VARIATION}


@dataclass(frozen=True)
class _Sample:
    """An answer that might come: ``name`` says which, and the rest is what it holds."""

    name: str
    images: int
    quality: str = ""
    size: str = ""
    usage: bytes | None = None


@dataclass(frozen=True)
class Question:
    """A request as somebody imagines it. ``given`` has ``n``, ``quality``, ``size`` and ``image_size``, None left out.

    ``references`` are images that an edit or a chat starts from, ``images`` those of the answer; None, those asked for.
    """

    given: Mapping[str, Any]
    task: str = "generation"
    references: int = 0
    images: int | None = None


def estimate(question: Question, model: Model, money: Money, *, by_delivered: bool) -> dict[str, Any]:
    """What it would cost, by which rule and why. Raises ProxyError for what would be refused."""
    asked = _request(model, question.task, question.references, question.given)
    quote = price(asked, model)
    made = quote.images if question.images is None else question.images
    return {
        "model": model.id,
        "task": question.task,
        "images": quote.images,
        "rule": quote.rule or DEFAULT,
        "why": _why(model, quote),
        **money.beside({"unit_price": quote.unit_price}, "unit_price"),
        "reference_images": quote.reference_images,
        **money.beside({"reference_units": quote.reference_units}, "reference_units"),
        **money.beside({"reserved": quote.units}, "reserved"),
        "settled_by": "images" if model.prices is None else model.prices.settling.by.value,
        "rules": _rules(model, quote),
        "answers": [_answer(asked, model, quote, each, money, by_delivered) for each in _samples(model, quote, made)],
    }


def _request(model: Model, task: str, references: int, given: Mapping[str, Any]) -> Asked:
    """What a client would send. Raises ProxyError for what would be refused."""
    config = {} if given["image_size"] is None else {"image_config": {"image_size": given["image_size"]}}
    if task == "chat":
        image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
        messages = [{"role": "user", "content": [{"type": "text", "text": "draw"}, *[image] * references]}]
        chat = {"messages": messages, "modalities": ["image", "text"], **config}
        chat_request = parse_chat_request(orjson.dumps(chat))
        check_sizes(chat_request.size, chat_request.image_size, model)
        check_chat(chat_request, model)
        return chat_request
    fields = {name: given[name] for name in ("n", "quality", "size") if given[name] is not None}
    image_request = parse_image_request(orjson.dumps({"prompt": "a cube", **fields, **config}))
    check_n(image_request, model.max_n)
    check_sizes(image_request.size, image_request.image_size, model)
    inputs = Inputs([Reference("https://example.com/1.png")] * references)
    return agree_on_size(replace(image_request, task=_TASKS[task], inputs=inputs), model)


def _samples(model: Model, quote: Quote, images: int) -> Iterator[_Sample]:
    """Answers that may come: as asked for, without an image, with what was left open, and with a report."""
    yield _Sample("says nothing of itself", images)
    yield _Sample("no image", 0)
    if model.prices is None or quote.wanted is None or not images:
        return
    table, wanted = model.prices.table, quote.wanted
    named = [rule.conditions for rule in table.rules]
    qualities = list(dict.fromkeys(str(each["quality"]) for each in named if "quality" in each))
    sizes = list(dict.fromkeys([*(str(each["size"]) for each in named if "size" in each), PLAIN_SIZE]))
    for quality in qualities if wanted.quality is None and qualities else [""]:
        for size in sizes if wanted.sizes is None else [""]:
            said = {name: value for name, value in (("quality", quality), ("size", size)) if value}
            if said:
                yield _Sample(" ".join(f"{name}={value}" for name, value in said.items()), images, quality, size)
    if model.prices.settling.by is SettleBy.USAGE:
        usage = {
            "input_tokens": SAMPLE_TOKENS.input_text,
            "output_tokens": SAMPLE_TOKENS.output_image * images,
        }
        name = f"{SAMPLE_TOKENS.input_text} tokens of text in, {usage['output_tokens']:,} of images out"
        yield _Sample(name, images, usage=orjson.dumps(usage))
    if model.prices.settling.by is SettleBy.COST:
        yield _Sample(f"a cost of ${SAMPLE_COST_USD}", images, usage=orjson.dumps({"cost": SAMPLE_COST_USD}))


def _answer(
    asked: Asked, model: Model, quote: Quote, sample: _Sample, money: Money, by_delivered: bool
) -> dict[str, Any]:
    """What it would be charged, as it would stand in the ledger."""
    terms = agree(asked, model, quote, by_delivered_size=by_delivered, kept_answer_bytes=0)
    delivery = Delivery(
        terms,
        images=sample.images,
        told=((sample.quality, sample.size),) * sample.images,
        provider_usage=sample.usage,
    )
    delivery.end(complete=True)
    reservation = Reservation("", "", "", "", model.id, quote, 0, None)
    settlement = settle(reservation, delivery)
    figures = {"images": sample.images, "charged": settlement.charged_units, "overage": settlement.overage_units}
    return {"answer": sample.name, **money.beside(figures, "charged", "overage"), "basis": settlement.basis}


def _rules(model: Model, quote: Quote) -> list[dict[str, Any]]:
    """The rules in the order in which they win, and which of them apply, or may."""
    if model.prices is None or quote.wanted is None:
        return []
    table = model.prices.table
    return [
        {"rule": rule.name, "units": table.units_of(rule), "applies": _applies(table, rule, quote.wanted, quote.rule)}
        for rule in table.rules
    ]


def _applies(table: PriceTable, rule: Rule, wanted: Wanted, winner: str) -> str:
    if not table.may_match(rule, wanted):
        return "no"
    if rule.name == winner:
        return "yes"
    return "matches, and loses" if wanted.quality is not None and wanted.sizes is not None else "may"


def _why(model: Model, quote: Quote) -> str:
    if model.prices is None or quote.wanted is None:
        return "the model has no prices of its own: 12,500 base units for 4K, else 5,000"
    wanted = quote.wanted
    left_open = [name for name, value in (("quality", wanted.quality), ("size", wanted.sizes)) if value is None]
    if left_open:
        return f"{' and '.join(left_open)} left open: the dearest price that it may come to is reserved"
    if quote.rule == DEFAULT:
        return "no rule matches: 12,500 base units for 4K, else 5,000"
    return "of the rules that match, the one that names most; of those that name as many, the dearest"
