from __future__ import annotations

import json
import tracemalloc
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.domain.answers.images.in_text import TextImages
from proxy.domain.parsing.image_addresses import Place

DATA = "data:image/png;base64,"


class Heard:
    """The images of a text, each with its place; those that were none are in ``refused``."""

    def __init__(self) -> None:
        self.images: list[tuple[Place, bytes]] = []
        self.refused: list[bytes] = []
        self.length = 0
        self._place: Place | None = None
        self._image: list[bytes] = []

    def begin_linked(self, place: Place) -> None:
        assert self._place is None
        self._place = place

    def linked(self, piece: bytes) -> None:
        assert self._place is not None
        self.length += len(piece)
        if self.length <= 10_000:
            self._image.append(piece)

    def end_linked(self, *, is_image: bool) -> None:
        assert self._place is not None
        image, self._image = b"".join(self._image), []
        if not is_image:
            # Of what is too long, more or less has been told by then.
            self.refused.append(image[:4_096])
        elif image:
            self.images.append((self._place, image))
        self._place = None


def found(pieces: Sequence[bytes]) -> tuple[list[tuple[Place, bytes]], list[bytes]]:
    heard, text = Heard(), TextImages()
    for piece in pieces:
        text.add(piece, heard)
    text.end(heard)
    return heard.images, heard.refused


def found_however_cut(text: bytes) -> list[tuple[Place, bytes]]:
    whole = found([text])
    assert found([text[at : at + 1] for at in range(len(text))]) == whole
    for at in range(len(text) + 1):
        assert found([text[:at], text[at:]]) == whole
    return whole[0]


@pytest.mark.parametrize(
    ("text", "images"),
    [
        (f"![a cube]({DATA}AAAA)", 1),
        (f"before ![a]({DATA}AAAA) between ![b]({DATA}BBBB) after", 2),
        (f"![a]({DATA}AAAA)![b]({DATA}AAAA)", 2),
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
        ("![a](https://images.example/1.png) ![b](https://images.example/1.png)", 2),
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
        ("![a] and [b](https://images.example/1.png)", 0),
        (f"![{'x' * 300}](https://images.example/1.png)", 1),
        (f"![a {'[b] ' * 100}](https://images.example/1.png)", 1),
        (f"![a]{' x' * 200} [b](https://images.example/1.png)", 0),
        (f"![a {'x' * 300}\n\n b](https://images.example/1.png)", 0),
        (f"![a {'x' * 300}\n b](https://images.example/1.png)", 1),
        (f"[![{'x' * 300}](https://images.example/1.png){' ' * 300}](https://images.example/)", 1),
        (r"\![a](https://images.example/1.png)", 0),
        (r"!\[a](https://images.example/1.png)", 0),
        (r"![a\](https://images.example/1.png)", 0),
        (r"![a\\](https://images.example/1.png)", 1),
        (r"![\] a \[](https://images.example/1.png)", 1),
        (f'<img alt="{"x" * 300}" src="https://images.example/1.png">', 1),
        (f'<img alt="{"x" * 300} > y" src="https://images.example/1.png">', 1),
        ('<img alt="a > b" src="https://images.example/1.png">', 1),
        ("<img alt='a > \"b' src='https://images.example/1.png'>", 1),
        ('<img alt=5" src="https://images.example/1.png">', 1),
        ('<img src = "https://images.example/1.png">', 1),
        ('<img\nsrc\n=\n"https://images.example/1.png">', 1),
        (f'<img src = "{DATA}AAAA">', 1),
        ('<img alt="src=https://images.example/1.png " src="a.png">', 0),
        ('<img alt="a="> <b src="https://images.example/1.png">', 0),
        (f'<img alt="{"x" * 300}"> <video src="https://images.example/1.mp4">', 0),
        ('<img alt="a\n\n<img src="https://images.example/1.png">', 1),
        ('<img src="https://a.example/1" alt="a > b" src="https://a.example/2">', 2),
        ('<imgs src="https://images.example/1.png">', 0),
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
    seen = found_however_cut(in_json)
    assert len(seen) == images
    for place, image in seen:
        assert image.startswith(b"http") == (place.kind == b"url")
        assert image in in_json


@pytest.mark.parametrize("data", ["A\\u002BA\\u003d", "A\\/A\\u002f", "AAAA"])
@pytest.mark.parametrize(("begin", "end"), [("](", ")"), ("](\\u003c", "\\u003e"), ("src=\\u0022", "\\u0022")])
def test_what_encoders_escape_is_read_all_the_same(begin: str, data: str, end: str) -> None:
    seen = found_however_cut(f"{begin}data:image\\/png;base64,{data}{end}".encode())
    assert seen == [(Place(b"b64_json", media_type=b"image\\/png"), data.encode())]


@pytest.mark.parametrize(
    "text",
    [
        '\\u003cimg alt\\u003d\\"a \\u003e b\\" src\\u003d\\"https://a.example/1\\"\\u003e',
        "\\u003CIMG alt\\u003D\\u0022a \\u003E b\\u0022 src\\u003D\\u0027https://a.example/1\\u0027/\\u003E",
        "\\u003cimg alt=\\u0027a > b\\u0027 src=https://a.example/1>",
    ],
)
def test_tags_are_read_however_they_are_escaped(text: str) -> None:
    assert found_however_cut(text.encode()) == [(Place(b"url"), b"https://a.example/1")]


@pytest.mark.parametrize(
    ("text", "images"),
    [
        (f"a ![a]({DATA}AAAA) b", [(Place(b"b64_json", media_type=b"image/png"), b"AAAA")]),
        ("![](DATA:Image/PNG;x=y;base64,A+/=)", [(Place(b"b64_json", media_type=b"Image/PNG"), b"A+/=")]),
        ("![a](https://a.example/1)", [(Place(b"url"), b"https://a.example/1")]),
        ("<img src='HTTP://a.example/1?a=b&c=d'>", [(Place(b"url"), b"HTTP://a.example/1?a=b&c=d")]),
        ("https:\\/\\/a.example\\/1", [(Place(b"url"), b"https:\\/\\/a.example\\/1")]),
    ],
)
def test_what_is_found_is_told_as_it_comes(text: str, images: list[tuple[Place, bytes]]) -> None:
    assert found_however_cut(text.encode()) == images


@pytest.mark.parametrize(
    ("text", "refused"),
    [
        (f"![a]({DATA}AAAA", b"AAAA"),
        (f"![a]({DATA}AA...)", b"AA"),
        ("![a](https://a.example/1", b"https://a.example/1"),
    ],
)
def test_what_was_no_image_is_told_when_that_is_known(text: str, refused: bytes) -> None:
    assert found_however_cut(text.encode()) == []
    assert found([text.encode()])[1] == [refused]


def test_a_text_that_has_ended_does_not_go_on_in_the_next() -> None:
    heard, text = Heard(), TextImages()
    for piece in (f"![a]({DATA}AA".encode(), b"AA)", DATA.encode(), b"AAAA"):
        text.add(piece, heard)
        text.end(heard)
    assert heard.images == []


def test_text_is_not_searched_where_no_image_was_asked_for() -> None:
    heard, text = Heard(), TextImages(is_wanted=False)
    text.add(f"![a]({DATA}AAAA) ![b](https://images.example/1.png)".encode(), heard)
    text.end(heard)
    assert (heard.images, heard.refused) == ([], [])


class Failing(Heard):
    def linked(self, piece: bytes) -> None:
        raise OverflowError


def test_its_reader_is_not_held_after_a_piece_even_where_it_fails() -> None:
    text = TextImages()
    with pytest.raises(OverflowError):
        text.add(f"![a]({DATA}AAAA)".encode(), Failing())
    assert not hasattr(text, "_sink")


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
    "[",
    "]",
    "\\\\",
    "\\n\\n",
    "=",
    "'",
    "alt=",
    "\\u003e",
    "x" * 250,
]


@given(st.lists(st.sampled_from(FRAGMENTS), max_size=24), st.lists(st.integers(0, 400), max_size=8))
def test_what_is_found_does_not_depend_on_the_cuts(fragments: list[str], cuts: list[int]) -> None:
    text = "".join(fragments).encode()
    places = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})
    assert found([text[begin:end] for begin, end in pairwise(places)]) == found([text])


def test_an_image_of_thirty_megabytes_is_not_held() -> None:
    heard, text = Heard(), TextImages()
    text.add(f"here: ![a]({DATA}".encode(), heard)
    piece = b"A" * 65_536
    tracemalloc.start()
    try:
        for _ in range(460):
            text.add(piece, heard)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    text.add(b")", heard)
    assert (len(heard.images), heard.length, peak < 1_000_000) == (1, 460 * 65_536, True)
