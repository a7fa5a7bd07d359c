from __future__ import annotations

import io
import sys

import pytest
from PIL import Image

from proxy.sample_provider.drawing import DrawingUnavailable, draw_picture

LONG_PROMPT = "a translucent blue cube on a white table " * 100


@pytest.mark.parametrize("size", [(1024, 1024), (1024, 576), (300, 900), (16, 16), (16, 4096)])
@pytest.mark.parametrize("prompt", ["a blue cube", "", "x" * 3000, LONG_PROMPT, "голубой куб 青い ☃\n\ttabs"])
def test_any_prompt_is_drawn_at_any_size(prompt: str, size: tuple[int, int]) -> None:
    with Image.open(io.BytesIO(draw_picture(prompt, *size))) as picture:
        picture.load()
        assert picture.format == "PNG"
        assert picture.size == size


def test_the_largest_picture() -> None:
    with Image.open(io.BytesIO(draw_picture("a blue cube", 4096, 4096))) as picture:
        assert picture.size == (4096, 4096)


def test_the_same_prompt_and_size_give_the_same_bytes() -> None:
    assert draw_picture("a blue cube", 256, 128) == draw_picture("a blue cube", 256, 128)
    assert draw_picture("a blue cube", 256, 128) != draw_picture("a red cube", 256, 128)


def test_the_words_are_there_to_read() -> None:
    with Image.open(io.BytesIO(draw_picture("a blue cube", 512, 512))) as picture:
        colours = picture.getcolors(maxcolors=512 * 512)
    assert colours is not None
    white_pixels = sum(count for count, colour in colours if colour == (255, 255, 255))
    assert 1_000 < white_pixels < 100_000


def test_without_pillow_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(DrawingUnavailable, match=r"pip install 'lightmeter\[demo\]'"):
        draw_picture("a blue cube", 64, 64)
