from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.domain.answers.images.markup import TOKEN_BYTES_LIMIT, Markup


def after(text: str) -> Markup:
    markup = Markup()
    markup.take(text.encode(), 0, len(text.encode()))
    return markup


@pytest.mark.parametrize(
    ("text", "is_in_image"),
    [
        ("", False),
        ("![a", True),
        ("[a", False),
        ("![a [b", False),
        ("![a [b]", True),
        ("![a] b", False),
        ("[![a", True),
        ("[![a](x)", False),
        ("![" + "[b]" * 200, True),
        ("![" + "[" * 200, False),
        ("![a\\n\\n", False),
        ("![a\\n \\t\\r\\n", False),
        ("![a\\nb", True),
        ("\\\\![a", False),
        ("\\\\\\\\![a", True),
        ("![a\\\\]", True),
        ("]]]![a", True),
    ],
)
def test_brackets(text: str, *, is_in_image: bool) -> None:
    assert after(text).is_in_image_brackets == is_in_image


@pytest.mark.parametrize(
    ("text", "is_in_tag"),
    [
        ("<img ", True),
        ("<img/", True),
        ("<img\\n", True),
        ("\\u003cIMG ", True),
        ("<img", False),
        ("<image ", False),
        ("<img >", False),
        ("<img \\u003E", False),
        ('<img alt=\\"', False),
        ('<img alt=\\"a > b', False),
        ('<img alt=\\"a > b\\"', True),
        ("<img alt=\\u0022a > b\\u0022", True),
        ("<img alt = 'a > \\\" b'", True),
        ("<img alt='a=' b", True),
        ("<img alt='a=\\\" b", False),
        ('<img alt=\\"a\\n\\n', True),
        ("it='s <img ", True),
        ('<img 5\\" ', True),
    ],
)
def test_tags(text: str, *, is_in_tag: bool) -> None:
    assert after(text).is_in_image_tag == is_in_tag


PARTS = ["![", "[", "]", "<img ", ">", '=\\"', '\\"', "'", "\\n", "\\\\", "\\u003c", "img", "=", " ", "x" * 60]


@given(st.lists(st.sampled_from(PARTS), max_size=30), st.lists(st.integers(0, 2_000), max_size=6))
def test_what_it_knows_does_not_depend_on_how_a_text_is_taken(parts: list[str], stops: list[int]) -> None:
    text = "".join(parts).encode()
    whole, cut = Markup(), Markup()
    end = whole.take(text, 0, len(text))
    at = 0
    for stop in sorted(stop % (len(text) + 1) for stop in stops):
        # As little as has to be known behind the stop.
        at = cut.take(text[: stop + TOKEN_BYTES_LIMIT], at, stop)
    assert cut.take(text, at, len(text)) == end
    assert cut.is_in_image_brackets == whole.is_in_image_brackets
    assert cut.is_in_image_tag == whole.is_in_image_tag


def test_what_is_known_of_a_hostile_text_is_bounded() -> None:
    markup, text = Markup(), b"![" * 4_096 + b"<img a='"
    tracemalloc.start()
    try:
        for _ in range(20):
            markup.take(text, 0, len(text))
        size, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert size < 20_000
