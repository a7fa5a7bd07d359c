"""The options of commands that set limits, of a key or of a team."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from proxy.domain.limits import QUOTAS
from proxy.domain.money import USD_PATTERN

F = TypeVar("F", bound=Callable[..., Any])

NO_LIMIT = "none"
_usd = re.compile(f"-?{USD_PATTERN}")

_OPTIONS = {
    "quota": ("quota_units", "Quota units in total."),
    "quota-per-day": ("quota_units_per_day", "Quota units a UTC day."),
    "quota-per-month": ("quota_units_per_month", "Quota units a UTC month."),
    "requests-per-minute": ("requests_per_minute", "Requests a minute."),
    "images-per-minute": ("images_per_minute", "Images a minute."),
    "concurrent-requests": ("concurrent_requests", "Requests in progress at a time."),
}

_USER_OPTIONS = {
    "user-quota-per-day": ("quota_units_per_day", "Quota units of each end user a UTC day."),
    "user-quota-per-month": ("quota_units_per_month", "Quota units of each end user a UTC month."),
    "user-images-per-minute": ("images_per_minute", "Images of each end user a minute."),
    "user-concurrent-requests": ("concurrent_requests", "Requests of each end user in progress at a time."),
}
_OF_USER = "user_"
"""Before the names of parameters that are limits of each user."""


class Units(click.ParamType[Any]):
    """A whole number of quota units, or US dollars as ``$250``, which the gateway reads."""

    name = "units|$usd"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """An int, or the dollars as they are."""
        if isinstance(value, int) or _usd.fullmatch(value):
            return value
        try:
            return int(value)
        except ValueError:
            self.fail(f"{value!r} should be a whole number, or US dollars like '$250'.", param, ctx)


class _Limit(click.ParamType[Any]):
    """A whole number, or 'none' for no limit; a quota may be in US dollars."""

    def __init__(self, *, takes_usd: bool) -> None:
        self._takes_usd = takes_usd
        self.name = "number|$usd|none" if takes_usd else "number|none"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """An int, dollars as they are, or ``NO_LIMIT``."""
        if value == NO_LIMIT or isinstance(value, int) or (self._takes_usd and _usd.fullmatch(value)):
            return value
        try:
            return int(value)
        except ValueError:
            usd = ", US dollars like '$250'," if self._takes_usd else ","
            self.fail(f"{value!r} should be a whole number{usd} or 'none' for no limit.", param, ctx)


class _PerUser(click.ParamType[Any]):
    """A JSON object, or 'none'."""

    name = "json|none"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The object, which the gateway checks, or ``NO_LIMIT``."""
        if value == NO_LIMIT or isinstance(value, dict):
            return value
        try:
            limits = json.loads(value)
        except ValueError:
            limits = None
        if not isinstance(limits, dict):
            self.fail(f"{value!r} should be a JSON object, or 'none' for no limits of each user.", param, ctx)
        return limits


def limit_options(command: F) -> F:
    """Give a command one option for each limit."""
    models = click.option(
        "--model", "models", multiple=True, help="A model's id, 'prefix/*' or '*'; may be given several times."
    )
    per_user = click.option(
        "--limits-per-user",
        type=_PerUser(),
        help="All limits of each end user, and those of users who have others, as JSON: "
        '\'{"images_per_minute": 10, "users": {"ann": {}}}\'. \'none\' is none.',
    )
    command = models(per_user(command))
    for option, (name, text) in reversed(_USER_OPTIONS.items()):
        kind = _Limit(takes_usd=name in QUOTAS)
        command = click.option(f"--{option}", _OF_USER + name, type=kind, help=f"{text} 'none' is no limit.")(command)
    for option, (name, text) in reversed(_OPTIONS.items()):
        kind = _Limit(takes_usd=name in QUOTAS)
        command = click.option(f"--{option}", name, type=kind, help=f"{text} 'none' is no limit.")(command)
    return command


def changes_users(given: Mapping[str, Any]) -> bool:
    """Whether one of the limits of each user is among a command's parameters."""
    return any(given[_OF_USER + name] is not None for name, _text in _USER_OPTIONS.values())


def limits_given(given: Mapping[str, Any], per_user: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The limits among a command's parameters, as the admin API takes them; those left out are not there.

    ``per_user`` are the limits of each user so far, of which those left out stay.
    """
    limits: dict[str, Any] = {
        name: None if given[name] == NO_LIMIT else given[name]
        for name, _text in _OPTIONS.values()
        if given[name] is not None
    }
    if given["models"]:
        limits["models"] = list(given["models"])
    whole = given["limits_per_user"]
    if whole is not None and changes_users(given):
        raise click.UsageError("--limits-per-user says all limits of each user: leave the --user-… options out.")
    if whole is not None:
        limits["limits_per_user"] = None if whole == NO_LIMIT else whole
    elif changes_users(given):
        changed = {
            name: None if given[_OF_USER + name] == NO_LIMIT else given[_OF_USER + name]
            for name, _text in _USER_OPTIONS.values()
            if given[_OF_USER + name] is not None
        }
        limits["limits_per_user"] = {**(per_user or {}), **changed}
    return limits
