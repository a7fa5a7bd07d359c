"""``LIGHTMETER_…`` variables of the environment: those that override settings, and those that nobody knows."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel

from proxy.settings.mistakes import ENVIRONMENT, SECTION_LISTS, SECTIONS_WITHIN

PREFIX = "LIGHTMETER_"
OTHERS = frozenset({"LIGHTMETER_ADMIN_TOKEN", "LIGHTMETER_ADMIN_URL", "LIGHTMETER_CONFIG"})
"""Those that are no settings, and mean something all the same."""

CLOSE = 0.8

_service_link = re.compile(r"_SERVICE_(HOST|PORT(_\w+)?)$|_PORT(_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?$")
"""What Kubernetes adds for each Service of its namespace, whose name may begin with ``lightmeter``."""

_test = re.compile(r"LIGHTMETER_(TESTS?|CI)(_|$)")
"""What the tests of a checkout go by."""


def overrides(sections: Mapping[str, BaseModel]) -> Iterator[tuple[str, str, str]]:
    """The section, the setting and the variable of whatever a variable may override."""
    for name, section in sections.items():
        for key in type(section).model_fields:
            # Sections of their own are not written in one variable.
            if f"{name}.{key}" not in (*SECTION_LISTS, *SECTIONS_WITHIN):
                yield name, key, f"{PREFIX}{name}_{key}".upper()


def override(
    content: dict[str, Any], environment: Mapping[str, str], sections: Mapping[str, BaseModel]
) -> dict[str, str]:
    """Put what the environment says into ``content``; the variables, by what they override."""
    overridden: dict[str, str] = {}
    for section, key, variable in overrides(sections):
        if variable in environment and isinstance(content.setdefault(section, {}), dict):
            content[section][key] = environment[variable]
            overridden[f"{section}.{key}"] = variable
    return overridden


def unknown_variables(
    environment: Mapping[str, str], sections: Mapping[str, BaseModel], named: Collection[str]
) -> Iterator[str]:
    """A line for each variable that would be a setting's, and is none's; ``named`` are those that a file names."""
    known = {variable for _, _, variable in overrides(sections)} | OTHERS
    for name in sorted(environment):
        if not name.upper().startswith(PREFIX) or name in known or name in named:
            continue
        if _test.match(name) or (_service_link.search(name) and _is_linked(environment[name])):
            continue
        without_section = [each for _, key, each in overrides(sections) if name.upper() == f"{PREFIX}{key}".upper()]
        close = without_section or get_close_matches(name.upper(), known, 1, CLOSE)
        meant = f"; was {close[0]} meant?" if close else "; settings are LIGHTMETER_<SECTION>_<SETTING>"
        yield f"{ENVIRONMENT}: {name}: is not a setting, and has no effect{meant}"


def _is_linked(value: str) -> bool:
    """Whether it looks as Kubernetes' values do: an address, a number, a protocol, ``tcp://10.0.0.1:8080``."""
    return bool(re.fullmatch(r"(tcp|udp|sctp)(://.*)?|[0-9]+|[0-9a-fA-F.:]+", value))
