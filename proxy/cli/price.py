"""``lightmeter price``: what a request would cost by the configuration, and why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from proxy.cli.support.configured import config_option, load
from proxy.cli.support.output import json_option, show_facts, show_json, show_table
from proxy.domain.billing.estimates import Question, estimate
from proxy.domain.errors import ProxyError
from proxy.domain.money import Money
from proxy.domain.prices.table import TASKS
from proxy.settings.mistakes import ConfigurationError


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
        money, by_delivered = Money(settings.accounting.units_per_usd), settings.accounting.tier == "delivered"
        question = Question(given, task, references, given["images"])
        facts = estimate(question, settings.catalog().get(model_id), money, by_delivered=by_delivered)
    except (ConfigurationError, ProxyError) as error:
        raise click.ClickException(str(error)) from None
    if as_json:
        return show_json(facts)
    rules, answers = facts.pop("rules"), facts.pop("answers")
    show_facts(facts)
    click.echo()
    if rules:
        show_table(("RULE", "UNITS", "APPLIES"), [tuple(rule.values()) for rule in rules])
        click.echo()
    headings = [name.upper().replace("_", " ") for name in answers[0] if name != "basis"]
    return show_table(headings, [[value for name, value in each.items() if name != "basis"] for each in answers])
