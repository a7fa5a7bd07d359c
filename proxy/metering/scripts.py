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
    """The script in ``lua/<name>.lua``."""
    text = _include.sub(lambda match: _read(match[1]), _read(name))
    return Script(name=name, text=text, sha1=sha1(text.encode(), usedforsecurity=False).hexdigest())


def _read(name: str) -> str:
    return files("proxy.metering").joinpath("lua", f"{name}.lua").read_text()
