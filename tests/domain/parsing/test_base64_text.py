from __future__ import annotations

import base64
import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.domain.parsing.base64_text import LOOKED_AT_BYTES, Base64Text, is_plain


def mended(text: bytes, cuts: list[int]) -> bytes:
    """What is passed on of a string that comes in pieces."""
    ends = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    reader = Base64Text()
    pieces = [reader.take(text[begin:end]) for begin, end in pairwise(ends)]
    return b"".join(pieces) + reader.end()


def in_json(text: str) -> bytes:
    return json.dumps(text)[1:-1].encode()


cuts = st.lists(st.integers(0, 2_000), max_size=8)


@given(st.binary(min_size=200, max_size=1_000), st.sampled_from(["\n", "\r\n", " ", "\t"]), cuts)
def test_lines_and_blanks_are_removed(data: bytes, separator: str, cuts: list[int]) -> None:
    plain = base64.b64encode(data).decode()
    lines = separator + separator.join(plain[at : at + 76] for at in range(0, len(plain), 76)) + separator
    assert mended(in_json(lines), cuts) == plain.encode()


@given(st.binary(max_size=1_000), cuts)
def test_the_alphabet_for_addresses_becomes_that_of_base64_and_is_padded(data: bytes, cuts: list[int]) -> None:
    begin = b"\xfb\xff\xfe" + data
    text = base64.urlsafe_b64encode(begin).rstrip(b"=")
    assert mended(text, cuts) == base64.b64encode(begin)


@given(st.binary(max_size=1_000), cuts)
def test_escapes_are_undone(data: bytes, cuts: list[int]) -> None:
    begin = b"\xff\xff\xff" + data
    text = base64.b64encode(begin)
    for plus, slash, equals in ((b"+", rb"\/", b"="), (rb"\u002b", rb"\u002F", rb"\u003d")):
        escaped = text.replace(b"+", plus).replace(b"/", slash).replace(b"=", equals)
        assert mended(escaped, cuts) == text


@given(st.binary(max_size=1_000), cuts)
def test_what_is_as_it_should_be_is_passed_on_as_it_is(data: bytes, cuts: list[int]) -> None:
    text = base64.b64encode(data)
    assert is_plain(text)
    assert mended(text, cuts) == text


@pytest.mark.parametrize(("text", "plain"), [(b"", True), (b"AA==", True), (b" AA==", False), (b"A-A_", False)])
def test_what_is_plain(text: bytes, *, plain: bool) -> None:
    assert is_plain(text) is plain
    assert is_plain(b"A" * LOOKED_AT_BYTES + text)
