"""No script builds the name of a key: each is one of KEYS. That no other is touched, all tests of metering see to."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest

TEXTS = {
    file.name: re.sub(r"--.*", "", file.read_text())
    for folder in files("proxy.metering.redis_store").joinpath("lua").iterdir()
    for file in folder.iterdir()
}
NAME = r"[A-Za-z_][\w.]*"
DECLARED = re.compile(r"KEYS\[[^\[\]]+(?:\[[^\]]*\])?[^\[\]]*\]|table\.remove\(KEYS\)")
TAKES_KEYS = ("counters_of", "add_to", "check_usage", "pack_limits", "books", "used_by", "keep_user", "add_to_user")
"""Functions whose arguments are keys, as many as are given here."""
NUMBER_OF_KEYS = {"books": (1, 4)}


def arguments(text: str, start: int) -> list[str]:
    """The arguments of the call whose opening bracket is just before ``start``."""
    found, depth, begin = [], 0, start
    for at in range(start, len(text)):
        if text[at] in "([{":
            depth += 1
        elif text[at] in ")]}" and depth:
            depth -= 1
        elif depth == 0 and text[at] in ",)":
            found.append(text[begin:at].strip())
            begin = at + 1
            if text[at] == ")":
                break
    return found


def key_expressions(text: str) -> list[str]:
    """What stands where Redis, or a function of ours that passes it on, takes a key."""
    found = []
    for match in re.finditer(r"redis\.call\(", text):
        call = arguments(text, match.end())
        if call != ["'TIME'"]:
            found.append(call[1])
    for name in TAKES_KEYS:
        for match in re.finditer(rf"(?<!function )\b{name}\(", text):
            first, end = NUMBER_OF_KEYS.get(name, (0, 1))
            found += arguments(text, match.end())[first:end]
    return found


def assigned(text: str, name: str) -> list[str]:
    """What ``name`` is set to; a function's argument is what its callers give, which are looked at."""
    short = re.escape(name)
    pairs = re.findall(r"\blocal ([\w, ]+) = (.+)", text) + re.findall(rf"^\s*({short}) = (.+)", text, re.MULTILINE)
    found = []
    for names, values in pairs:
        listed = [each.strip() for each in names.split(",")]
        if name in listed:
            found.append(arguments(values.replace("\n", "") + ")", 0)[listed.index(name)])
    field = name.rpartition(".")[2]
    if field != name:
        found += re.findall(rf"\b{field} = (KEYS\[[^}}]+|{NAME})", text)
    return found


@pytest.mark.parametrize("file", sorted(TEXTS))
def test_a_key_is_one_that_was_declared(file: str) -> None:
    text = TEXTS[file]
    for expression in key_expressions(text):
        assert ".." not in expression, expression
        if DECLARED.fullmatch(expression):
            continue
        assert re.fullmatch(NAME, expression) or expression.startswith("checkpoints["), expression
        for value in assigned(text, expression):
            assert ".." not in value, (expression, value)
            assert "string." not in value, (expression, value)


def test_a_name_that_is_built_is_found() -> None:
    assert key_expressions("redis.call('GET', team .. 'x')") == ["team .. 'x'"]
    assert key_expressions("redis.call('TIME') add_to(KEYS[one.at + 1], redis.call('HGET', name, 'x'))") == [
        "name",
        "KEYS[one.at + 1]",
    ]
    assert assigned("local a, name = 1, string.sub(KEYS[1], 1)", "name") == ["string.sub(KEYS[1], 1)"]
