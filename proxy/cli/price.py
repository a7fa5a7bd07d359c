"""``lightmeter price``: what a request would cost by the configuration, and why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import orjson

from proxy.cli.support.configured import config_option, load
from proxy.cli.support.output import json_option, show_facts, show_json, show_table
from proxy.domain.billing.pricing import Quote, agree, price
from proxy.domain.billing.settlement import Delivery, Reservation, settle
from proxy.domain.catalog import Model
from proxy.domain.errors import ProxyError
from proxy.domain.money import Money
from proxy.domain.prices.settling import SettleBy
from proxy.domain.prices.table import DEFAULT, TASKS, PriceTable, Rule, Wanted
from proxy.domain.requests.chat import ChatRequest, check_chat, parse_chat_request
from proxy.domain.requests.image import ImageRequest, Task, check_n, parse_image_request
from proxy.domain.requests.inputs import Inputs, Reference
from proxy.domain.requests.size_words import check_sizes
from proxy.domain.requests.sizes import agree_on_size
from proxy.domain.usage import Tokens
from proxy.settings.mistakes import ConfigurationError

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


@click.command("price")
@click.argument("model_id", metavar="MODEL")
@config_option
@click.option("--task", type=click.Choice(TASKS), default="generation", show_default=True)
@click.option("--n", type=click.IntRange(min=1), help="Images asked for; left out, the model's default_n.")
@click.option("--quality", help="Left out or 'auto', it is left to the provider.")
@click.option("--size", help="WIDTHxHEIGHT or a word; left out or 'auto', it is left to the provider.")
@click.option("--image-size", help="image_config.image_size, as 4K.")
@click.option(
    "--references", type=click.IntRange(0, 1_000), default=0, help="Images that an edit or a chat starts from."
)
@click.option("--images", type=click.IntRange(min=0), help="Images of the answer; left out, those asked for.")
@json_option
def price_command(path: Path, model_id: str, task: str, references: int, as_json: bool, **given: Any) -> None:
    """Show what a request to MODEL would reserve and be charged, by which rule and why. Nothing is sent anywhere."""
    try:
        settings = load(path)
        model = settings.catalog().get(model_id)
        asked = _request(model, task, references, given)
        quote = price(asked, model)
    except (ConfigurationError, ProxyError) as error:
        raise click.ClickException(str(error)) from None
    money, by_delivered = Money(settings.accounting.units_per_usd), settings.accounting.tier == "delivered"
    made = given["images"] if given["images"] is not None else quote.images
    answers = [_answer(asked, model, quote, sample, money, by_delivered) for sample in _samples(model, quote, made)]
    facts = {
        "model": model.id,
        "task": task,
        "images": quote.images,
        "rule": quote.rule or DEFAULT,
        "why": _why(model, quote),
        **money.beside({"unit_price": quote.unit_price}, "unit_price"),
        "reference_images": quote.reference_images,
        **money.beside({"reference_units": quote.reference_units}, "reference_units"),
        **money.beside({"reserved": quote.units}, "reserved"),
        "settled_by": "images" if model.prices is None else model.prices.settling.by.value,
    }
    if as_json:
        return show_json({**facts, "rules": _rules(model, quote), "answers": answers})
    show_facts(facts)
    click.echo()
    if rules := _rules(model, quote):
        show_table(("RULE", "UNITS", "APPLIES"), [tuple(rule.values()) for rule in rules])
        click.echo()
    headings = [name.upper().replace("_", " ") for name in answers[0] if name != "basis"]
    return show_table(headings, [[value for name, value in each.items() if name != "basis"] for each in answers])


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
