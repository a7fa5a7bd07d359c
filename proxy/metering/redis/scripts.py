"""The Lua scripts: read from their files, put together with what they include, and named by their SHA-1."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from hashlib import sha1
from importlib.resources import files

_include = re.compile(r"^-- @include (\w+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Script:
    """A script's text, and the SHA-1 by which Redis knows it. Each takes an id first and gives it back first."""

    name: str
    text: str
    sha1: str


@cache
def load_script(name: str) -> Script:
    """The script in ``<name>.lua``, with the parts that it includes."""
    text = _include.sub(lambda match: _texts()[match[1]], _texts()[name])
    return Script(name=name, text=text, sha1=sha1(text.encode(), usedforsecurity=False).hexdigest())


@cache
def _texts() -> dict[str, str]:
    """The text of each file below ``redis_store/lua``, by its name: no two folders there have the same."""
    top = files("proxy.metering.redis_store").joinpath("lua")
    return {
        file.name.removesuffix(".lua"): file.read_text()
        for folder in top.iterdir()
        for file in folder.iterdir()
        if file.name.endswith(".lua")
    }
