"""A picture of a prompt: its words, readable, on a background of its own. Pure; the same bytes every time.

Pillow is imported where a picture is begun, so that everything but drawing works without it.
"""

from __future__ import annotations

import colorsys
import hashlib
import io
from typing import TYPE_CHECKING, Final

from proxy.telemetry.program import PROGRAM

if TYPE_CHECKING:
    from PIL import ImageDraw
    from PIL.ImageFont import FreeTypeFont, ImageFont

    Font = FreeTypeFont | ImageFont

_MAX_SHOWN_CHARACTERS: Final = 1000
_LINE_HEIGHT: Final = 1.3
_TEXT_SHARES_OF_EDGE: Final = (10, 13, 17, 22, 28, 36)
_NOTE_SHARE_OF_EDGE: Final = 40
_SMALLEST_TEXT_PX: Final = 8
_SAVING: Final[dict[str, dict[str, int]]] = {
    "png": {"compress_level": 3},
    "jpeg": {"quality": 85},
    "webp": {"quality": 80, "method": 0},
}
_WHITE: Final = (255, 255, 255)
_FAINT: Final = (255, 255, 255, 150)
_FAINTEST: Final = (255, 255, 255, 22)


class DrawingUnavailable(RuntimeError):
    """Pillow is not installed."""


def draw_picture(prompt: str, width: int, height: int, picture_format: str = "png") -> bytes:
    """A picture of ``width`` by ``height`` pixels with the prompt on it, as ``png``, ``jpeg`` or ``webp``.

    Raises `DrawingUnavailable` without Pillow.
    """
    try:
        from PIL import Image, ImageDraw, ImageFont  # noqa: PLC0415 - everything else works without Pillow
    except ImportError as error:
        raise DrawingUnavailable(f"Pillow is needed to draw pictures: {PROGRAM.install('demo')}") from error
    chance = hashlib.blake2b(prompt.encode(), digest_size=16).digest()
    top, bottom = _colours(chance)
    picture = Image.new("RGB", (1, 2), top)
    picture.putpixel((0, 1), bottom)
    picture = picture.resize((width, height), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(picture, "RGBA")
    _draw_circles(draw, chance, width, height)

    edge = min(width, height)
    margin = edge // 12
    words = prompt[:_MAX_SHOWN_CHARACTERS].split()
    for share in _TEXT_SHARES_OF_EDGE:
        text_px = max(_SMALLEST_TEXT_PX, edge // share)
        font = ImageFont.load_default(size=text_px)
        room = max(1, int((height - 3 * margin) / (text_px * _LINE_HEIGHT)))
        lines = _wrapped(words, font, width - 2 * margin, room + 1)
        if len(lines) <= room:
            break
    else:
        lines = [*lines[: room - 1], lines[room - 1] + " …"]
    _draw_lines(draw, lines, font, width / 2, (height - len(lines) * text_px * _LINE_HEIGHT) / 2, text_px)

    note_font = ImageFont.load_default(size=max(_SMALLEST_TEXT_PX, edge // _NOTE_SHARE_OF_EDGE))
    corner = (width - margin / 2, height - margin / 2)
    draw.text(corner, f"sample provider  {width} x {height}", fill=_FAINT, font=note_font, anchor="rs")
    file = io.BytesIO()
    picture.save(file, picture_format, **_SAVING[picture_format])
    return file.getvalue()


def _colours(chance: bytes) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """Two neighbouring hues, dark enough for white words."""
    hue = chance[0] / 256
    return _colour(hue, 0.44, 0.50), _colour(hue + 0.06 + chance[1] / 2560, 0.24, 0.58)


def _colour(hue: float, lightness: float, saturation: float) -> tuple[int, int, int]:
    red, green, blue = colorsys.hls_to_rgb(hue % 1, lightness, saturation)
    return round(red * 255), round(green * 255), round(blue * 255)


def _draw_circles(draw: ImageDraw.ImageDraw, chance: bytes, width: int, height: int) -> None:
    """A few large, faint circles, so that two pictures of one colour still differ."""
    for across, down, size in zip(chance[2:6], chance[6:10], chance[10:14], strict=True):
        x, y = across / 255 * width, down / 255 * height
        radius = (0.15 + size / 255 * 0.3) * min(width, height)
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=_FAINTEST)


def _draw_lines(
    draw: ImageDraw.ImageDraw, lines: list[str], font: Font, middle_px: float, top_px: float, text_px: int
) -> None:
    for index, line in enumerate(lines):
        draw.text((middle_px, top_px + index * text_px * _LINE_HEIGHT), line, fill=_WHITE, font=font, anchor="ma")


def _wrapped(words: list[str], font: Font, width_px: int, max_lines: int) -> list[str]:
    """The words in lines no wider than this, and the first so many of those; a word too wide by itself is cut."""
    lines: list[str] = []
    line = ""
    for word in words:
        longer = f"{line} {word}" if line else word
        if font.getlength(longer) <= width_px:
            line = longer
            continue
        if line:
            lines.append(line)
        line = word
        while font.getlength(line) > width_px and len(line) > 1 and len(lines) < max_lines:
            fitting = _fitting_characters(line, font, width_px)
            lines.append(line[:fitting])
            line = line[fitting:]
        if len(lines) >= max_lines:
            break
    return [*lines, line][:max_lines] if line else lines


def _fitting_characters(word: str, font: Font, width_px: int) -> int:
    """How many of a word's first characters fit, at least one."""
    fits, too_many = 1, len(word)
    while too_many - fits > 1:
        middle = (fits + too_many) // 2
        if font.getlength(word[:middle]) <= width_px:
            fits = middle
        else:
            too_many = middle
    return fits
