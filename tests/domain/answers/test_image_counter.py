from __future__ import annotations

import json
import tracemalloc
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.domain.answers.image_counter import PayloadImages, SeenImages, TextImages
from proxy.domain.parsing.image_header import Size

PNG = "iVBORw0KGgoAAAANSUhEUgAAAEAAAAAgCAYAAAA="
DATA = "data:image/png;base64,"


def found(pieces: Sequence[bytes]) -> tuple[int, list[Size | None]]:
    seen = SeenImages()
    text = TextImages(seen)
    for piece in pieces:
        text.add(piece)
    text.end()
    return seen.count, seen.sizes


def found_however_cut(text: bytes) -> tuple[int, list[Size | None]]:
    whole = found([text])
    assert found([text[at : at + 1] for at in range(len(text))]) == whole
    for at in range(len(text) + 1):
        assert found([text[:at], text[at:]]) == whole
    return whole


@pytest.mark.parametrize(
    ("text", "images"),
    [
        (f"![a cube]({DATA}AAAA)", 1),
        (f"before ![a]({DATA}AAAA) between ![b]({DATA}BBBB) after", 2),
        (f"![a]({DATA}AAAA)![b]({DATA}AAAA)", 1),
        (f'![a]( <{DATA}AAAA> "title")', 1),
        (f'![a](\n{DATA}AAAA "title")', 1),
        (f"[a]({DATA}AAAA)", 1),
        (f"![a][1]\n\n[1]: {DATA}AAAA\n", 1),
        (f'<img alt="a" src="{DATA}AAAA">', 1),
        (f"<img src='{DATA}AAAA'/>", 1),
        (f"<IMG SRC={DATA}AAAA>", 1),
        ("![a](DATA:image/PNG;charset=x;base64,AAAA)", 1),
        ("![a](data:image/svg+xml;base64,AAAA)", 1),
        (f"{DATA}AAAA", 1),
        (f"\n {DATA}AAAA\n", 1),
        (f"![a]({DATA}A+/_-=)", 1),
        (f"![a]({DATA}AAAA", 0),
        (f"![a]({DATA}AAAA...)", 0),
        (f"![a]({DATA})", 0),
        (f"![a]({DATA}iVBORw0KGgo…)", 0),
        (f"write {DATA}AAAA as an address", 0),
        ("![a](https://images.example/1.png)", 1),
        ("![](http://images.example/1.png)", 1),
        ("![a](https://images.example/1.png) ![b](https://images.example/2.png)", 2),
        ("![a](https://images.example/1.png) ![b](https://images.example/1.png)", 1),
        ('![a](<https://images.example/1.png> "title")', 1),
        ("[![a](https://images.example/1.png)](https://images.example/)", 1),
        ("![a [b] c](https://images.example/1.png)", 1),
        (f"![{'x' * 100}](https://images.example/1.png)", 1),
        ("![a](https://images.example/1.png?a=b&c=d+e)", 1),
        ('<img alt="a" src="https://images.example/1.png">', 1),
        ("<img width=1 src='https://images.example/1.png'/>", 1),
        ("<IMG SRC=https://images.example/1.png>", 1),
        ("https://images.example/1.png", 1),
        ("\n https://images.example/1.png \n", 1),
        ("[a](https://images.example/1.png)", 0),
        ("![a] and [b](https://images.example/1.png)", 1),
        ("![a](https://images.example/1.png)[b](https://images.example/)", 1),
        ("see https://images.example/1.png", 0),
        ("https://images.example/1.png is it", 0),
        ("https://images.example/1.png https://images.example/2.png", 0),
        ('<script src="https://scripts.example/1.js">', 0),
        ('<a href="https://images.example/1.png">', 0),
        ('<img src="a.png"> <script src="https://scripts.example/1.js">', 0),
        ("![a](https://images.example/1.png", 0),
        ("![a](ftp://images.example/1.png)", 0),
        (f"![a](https://images.example/{'x' * 5_000})", 0),
        ("![a](data:image/svg+xml,%3Csvg/%3E)", 0),
        ("![a](data:text/plain;base64,AAAA)", 0),
        (f"![a](x{DATA}AAAA)", 0),
        (f"![a]({'x' * 300}{DATA}AAAA) ![b]({DATA}BBBB)", 1),
        ("x](data:image/png;](data:image/png;base64,AAAA)", 1),
        ("", 0),
    ],
)
def test_images_are_found_in_text(text: str, images: int) -> None:
    in_json = json.dumps(text).encode()[1:-1]
    assert found_however_cut(in_json)[0] == images


@pytest.mark.parametrize("data", ["A\\u002BA\\u003d", "A\\/A\\u002f", "AAAA"])
@pytest.mark.parametrize(("begin", "end"), [("](", ")"), ("](\\u003c", "\\u003e"), ("src=\\u0022", "\\u0022")])
def test_what_encoders_escape_is_read_all_the_same(begin: str, data: str, end: str) -> None:
    assert found_however_cut(f"{begin}data:image\\/png;base64,{data}{end}".encode())[0] == 1


def test_each_has_its_size() -> None:
    assert found_however_cut(f"![a]({DATA}{PNG}) ![b]({DATA}AAAA)".encode()) == (2, [(64, 32), None])


def test_an_image_in_text_is_the_same_as_one_beside_it() -> None:
    seen = SeenImages()
    text, payload = TextImages(seen), PayloadImages(seen)
    text.add(f"![a]({DATA}AA".encode())
    payload.begin()
    payload.add(DATA.encode() + b"AAAA")
    payload.end()
    text.add(b"AA) ![b](")
    text.add(DATA.encode() + b"BBBB)")
    assert seen.count == 2


def test_a_text_that_has_ended_does_not_go_on_in_the_next() -> None:
    seen = SeenImages()
    text = TextImages(seen)
    for piece in (f"![a]({DATA}AA".encode(), b"AA)", DATA.encode(), b"AAAA"):
        text.add(piece)
        text.end()
    assert seen.count == 0


def test_text_is_not_searched_where_no_image_was_asked_for() -> None:
    seen = SeenImages(in_text=False)
    text, payload = TextImages(seen), PayloadImages(seen)
    text.add(f"![a]({DATA}AAAA) ![b](https://images.example/1.png)".encode())
    text.end()
    assert seen.count == 0
    payload.begin()
    payload.add(b"https://images.example/1.png")
    payload.end()
    assert seen.count == 1


def test_a_linked_image_in_text_is_the_same_as_one_beside_it() -> None:
    seen = SeenImages()
    text, payload = TextImages(seen), PayloadImages(seen)
    text.add(b"![a](https://images.example/1.png)")
    payload.begin()
    payload.add(b"https://images.example/1.png")
    payload.end()
    assert seen.count == 1


FRAGMENTS = [
    "http",
    "https://a.example/1",
    "://",
    "<img ",
    "\\n",
    "](",
    "<",
    ">",
    ")",
    " ",
    "src=",
    '\\"',
    "\\n",
    "\\",
    "\\u002f",
    "data:image/",
    "png",
    ";base64,",
    ",",
    DATA,
    "A",
    "![",
]


@given(st.lists(st.sampled_from(FRAGMENTS), max_size=24), st.lists(st.integers(0, 400), max_size=8))
def test_what_is_found_does_not_depend_on_the_cuts(fragments: list[str], cuts: list[int]) -> None:
    text = "".join(fragments).encode()
    places = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})
    assert found([text[begin:end] for begin, end in pairwise(places)]) == found([text])


def test_an_image_of_thirty_megabytes_is_not_held() -> None:
    seen = SeenImages()
    text = TextImages(seen)
    text.add(f"here: ![a]({DATA}".encode())
    piece = b"A" * 65_536
    tracemalloc.start()
    try:
        for _ in range(460):
            text.add(piece)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    text.add(b")")
    assert (seen.count, peak < 1_000_000) == (1, True)
