"""``lightmeter config check``: every mistake of a configuration, and of what it needs around it."""

from __future__ import annotations

import asyncio
import logging
import os
from dataclasses import dataclass, field
from pathlib import Path
from time import time

import click
import orjson

from proxy.cli.configuration.store_check import check_store
from proxy.cli.support.configured import config_option, examine
from proxy.metering.redis.durability import Finding
from proxy.settings.mistakes import ENVIRONMENT, ConfigurationError
from proxy.settings.settings import Settings


@dataclass
class Report:
    """What was found."""

    settings: Settings | None = None
    mistakes: list[str] = field(default_factory=list)
    store: list[Finding] = field(default_factory=list)

    @property
    def warnings(self) -> list[str]:
        """What is good as it is, and should be looked after."""
        return [] if self.settings is None or self.mistakes else self.settings.warnings(time())


@click.command()
@config_option
@click.option("--offline", is_flag=True, help="Look at the file and the environment only: at no store and no folder.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object, for scripts.")
def check(path: Path, *, offline: bool, as_json: bool) -> None:
    """Check the configuration, its folders and its store, and start nothing; every mistake is reported.

    It reports as well which models retire, and what the store may lose. Exit status: 0 if all is good, 1 if not.
    """
    # What is wrong is told once, and in the words of this command.
    logging.getLogger("proxy").addHandler(logging.NullHandler())
    report = look(path, offline=offline)
    if as_json:
        _show_json(report)
    else:
        _show(report, path)
    if report.mistakes:
        raise SystemExit(1)


def look(path: Path, *, offline: bool) -> Report:
    """Look at everything that could be wrong, whatever else is wrong."""
    try:
        examined = examine(path)
    except ConfigurationError as error:
        return Report(mistakes=str(error).splitlines())
    report = Report(examined.settings, list(examined.mistakes))
    if examined.settings is None:
        return report
    report.mistakes += examined.settings.unknown_variables(os.environ)
    if offline:
        return report
    report.mistakes += _told_by(path, examined.settings.unwritable_folders())
    if not any(_is_about_the_store(mistake, path) for mistake in examined.mistakes):
        checked = asyncio.run(check_store(examined.settings))
        report.mistakes += _told_by(path, checked.mistakes)
        report.store = checked.findings
    return report


def _told_by(path: Path, mistakes: list[str]) -> list[str]:
    return [f"{path}: {mistake}" for mistake in mistakes]


def _is_about_the_store(mistake: str, path: Path) -> bool:
    """Whether the address of the store is in doubt, so that there is nobody to ask."""
    return mistake.startswith((f"{path}: store", f"{ENVIRONMENT}: LIGHTMETER_STORE_"))


def _show(report: Report, path: Path) -> None:
    if report.settings is not None and not report.mistakes:
        found = f"{len(report.settings.providers)} provider(s), {len(report.settings.all_models)} model(s)"
        click.echo(f"{path}: good: {found}")
    for warning in report.warnings:
        click.echo(f"warning: {warning}")
    for each in report.store:
        click.echo(f"store: {'' if each.level == logging.INFO else logging.getLevelName(each.level) + ': '}{each.text}")
    if report.mistakes:
        click.echo("Error: " + "\n".join(report.mistakes), err=True)


def _show_json(report: Report) -> None:
    told: dict[str, object] = {"ok": not report.mistakes, "mistakes": report.mistakes}
    if report.settings is not None and not report.mistakes:
        told |= {
            "warnings": report.warnings,
            "providers": [provider.name for provider in report.settings.providers],
            "models": [model.id for model in report.settings.all_models],
        }
    if report.settings is not None:
        told["store"] = [
            {"level": logging.getLevelName(each.level).lower(), "text": each.text} for each in report.store
        ]
    click.echo(orjson.dumps(told).decode())
