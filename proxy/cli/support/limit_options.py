"""The options of commands that set limits, of a key or of a team."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

NO_LIMIT = "none"

_OPTIONS = {
    "quota": ("quota_units", "Quota units in total."),
    "quota-per-day": ("quota_units_per_day", "Quota units a UTC day."),
    "quota-per-month": ("quota_units_per_month", "Quota units a UTC month."),
    "requests-per-minute": ("requests_per_minute", "Requests a minute."),
    "images-per-minute": ("images_per_minute", "Images a minute."),
    "concurrent-requests": ("concurrent_requests", "Requests in progress at a time."),
}


class _Limit(click.ParamType[Any]):
    """A whole number, or 'none' for no limit."""

    name = "number|none"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """An int, or ``NO_LIMIT``."""
        if value == NO_LIMIT or isinstance(value, int):
            return value
        try:
            return int(value)
        except ValueError:
            self.fail(f"{value!r} should be a whole number, or 'none' for no limit.", param, ctx)


def limit_options(command: F) -> F:
    """Give a command one option for each limit."""
    models = click.option(
        "--model", "models", multiple=True, help="A model's id, 'prefix/*' or '*'; may be given several times."
    )
    command = models(command)
    for option, (name, text) in reversed(_OPTIONS.items()):
        command = click.option(f"--{option}", name, type=_Limit(), help=f"{text} 'none' is no limit.")(command)
    return command


def limits_given(given: Mapping[str, Any]) -> dict[str, Any]:
    """The limits among a command's parameters, as the admin API takes them; those left out are not there."""
    limits = {
        name: None if given[name] == NO_LIMIT else given[name]
        for name, _text in _OPTIONS.values()
        if given[name] is not None
    }
    if given["models"]:
        limits["models"] = list(given["models"])
    return limits
