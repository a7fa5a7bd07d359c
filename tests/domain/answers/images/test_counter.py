from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.domain.answers.images.counter import CountedImages, Fingerprint, PayloadImages, SeenImages
from proxy.domain.answers.images.in_text import TextImages
from proxy.domain.catalog import IMAGES_LIMIT
from proxy.domain.parsing.json_tokens import MalformedResponse

PNG = "iVBORw0KGgoAAAANSUhEUgAAAEAAAAAgCAYAAAA="
DATA = "data:image/png;base64,"


class Images:
    """A text and payloads beside it, which count together."""

    def __init__(self) -> None:
        self.seen = SeenImages()
        self._linked = CountedImages(self.seen)
        self._text = TextImages()
        self._payload = PayloadImages(self.seen)

    def say(self, text: str) -> None:
        self._text.add(text.encode(), self._linked)

    def end_text(self) -> None:
        self._text.end(self._linked)

    def send(self, *pieces: str) -> None:
        self._payload.begin()
        for piece in pieces:
            self._payload.add(piece.encode())
        self._payload.end()


def of_image(*pieces: bytes) -> Fingerprint:
    image = Fingerprint()
    for piece in pieces:
        image.add(piece)
    return image


def test_each_has_its_size() -> None:
    images = Images()
    images.say(f"![a]({DATA}{PNG}) ![b]({DATA}AAAA)")
    images.send(DATA + PNG + "AAAA")
    images.send("https://a.example/")
    assert (images.seen.count, images.seen.sizes) == (4, [(64, 32), None, (64, 32), None])


def test_an_image_in_text_is_the_same_as_one_beside_it() -> None:
    images = Images()
    images.say(f"![a]({DATA}AA")
    images.send(DATA, "AAAA")
    images.say("AA) ![b](")
    images.say(DATA + "BBBB)")
    images.say(" ![c](https://images.example/1.png)")
    images.send("https://images.example/1.png")
    images.send("BBBB")
    images.end_text()
    assert images.seen.count == 3


@pytest.mark.parametrize("data", ["", DATA])
def test_nothing_is_no_image(data: str) -> None:
    images = Images()
    images.send(data)
    images.say(f"![a]({DATA})")
    images.end_text()
    assert images.seen.count == 0


def test_what_is_cut_short_in_a_text_does_not_count() -> None:
    images = Images()
    images.say(f"![a]({DATA}AAAA")
    images.end_text()
    images.say(f"![a]({DATA}AA…)")
    images.end_text()
    assert images.seen.count == 0


@given(st.binary(max_size=2_000), st.lists(st.integers(0, 2_000), max_size=6))
def test_an_image_is_the_same_however_it_is_cut(image: bytes, cuts: list[int]) -> None:
    places = [0, *sorted(min(cut, len(image)) for cut in cuts), len(image)]
    pieces = [image[begin:end] for begin, end in pairwise(places)]
    assert of_image(*pieces).key == of_image(image).key
    assert of_image(image).is_empty == (not image)


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        (b"A" * 700, b"A" * 700, True),
        (b"A" * 700, b"A" * 701, False),
        (b"A" * 700, b"B" + b"A" * 699, False),
        (b"A" * 700, b"A" * 699 + b"B", False),
        (b"A" * 700, b"A" * 255 + b"B" + b"A" * 444, False),
        (b"A" * 700, b"A" * 444 + b"B" + b"A" * 255, False),
        (b"A" * 300, b"A" * 100 + b"B" + b"A" * 199, False),
    ],
)
def test_images_are_told_apart_by_their_length_their_beginning_and_their_end(
    one: bytes, other: bytes, *, is_same: bool
) -> None:
    seen = SeenImages()
    seen.add(of_image(one))
    assert (of_image(other) in seen) == is_same
    seen.add(of_image(other))
    assert seen.count == 2 - is_same


def test_one_begins_where_the_other_ended() -> None:
    image = of_image(b"A" * 300)
    image.begin()
    image.add(b"B")
    assert image.key == of_image(b"B").key


def test_there_is_a_limit_to_the_images_of_one_answer() -> None:
    images = Images()
    for number in range(IMAGES_LIMIT):
        images.send(str(number))
    images.send("0")
    with pytest.raises(MalformedResponse, match="too many images"):
        images.send("one more")
    assert images.seen.count == IMAGES_LIMIT
