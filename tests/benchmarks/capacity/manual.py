"""The part of the manual that this benchmark writes: figures, assumptions, what follows, and how. Pure."""

from __future__ import annotations

import re
import textwrap
from dataclasses import asdict, dataclass

from tests.benchmarks.capacity.sizing import Assumptions, Figures, Line, show, size, texts_of

BEGIN, END = "<!-- capacity: begin -->", "<!-- capacity: end -->"
IMAGES_PER_SECOND = (1_000, 10_000, 100_000)
WRITTEN_OUT = 10_000
LINE_LENGTH = 120


@dataclass(frozen=True, slots=True)
class Section:
    """Everything that the manual states; the rest follows. ``also`` is measured as well, and nothing follows of it."""

    machine: str
    figures: Figures
    assumed: Assumptions
    also: dict[str, str]


def write(section: Section) -> str:
    """The section, with both of its marks."""
    columns = {images: size(images, section.figures, section.assumed) for images in IMAGES_PER_SECOND}
    heads = [f"{images:,} images/s" for images in IMAGES_PER_SECOND]
    measured = {text: getattr(section.figures, name) for name, text in texts_of(Figures).items()}
    assumed = {text: getattr(section.assumed, name) for name, text in texts_of(Assumptions).items()}
    lines = [
        BEGIN,
        _row("", *heads),
        _row(*["---"] * (1 + len(heads))),
        *(
            _row(line.name, *(show(columns[images][number].value) for images in IMAGES_PER_SECOND))
            for number, line in enumerate(columns[WRITTEN_OUT])
        ),
        "",
        *textwrap.wrap(f"Measured on {section.machine}.", LINE_LENGTH, break_long_words=False),
        "",
        _row("measured", "figure"),
        _row("---", "---"),
        *(_row(text, show(value)) for text, value in measured.items()),
        *(_row(text, value) for text, value in section.also.items()),
        "",
        _row("assumed", "value"),
        _row("---", "---"),
        *(_row(text, show(value)) for text, value in assumed.items()),
        "",
        f"For {WRITTEN_OUT:,} images a second:",
        "",
        *(written for line in columns[WRITTEN_OUT] for written in written_out(line)),
        END,
    ]
    return "\n".join(lines)


def written_out(line: Line) -> list[str]:
    """One value with its arithmetic, in lines that can be read."""
    text = f"- {line.name} = {line.arithmetic} = {show(line.value)}"
    return textwrap.wrap(text, LINE_LENGTH, subsequent_indent="  ", break_on_hyphens=False)


def cut_out(text: str) -> str:
    """The section of a manual, with its marks. Raises ValueError where there is none."""
    begin, end = text.index(BEGIN), text.index(END)
    return text[begin : end + len(END)]


def read(text: str) -> Section:
    """What a manual states. Raises ValueError where something is missing."""
    section = cut_out(text)
    rows = dict(re.findall(r"^\| ([^|]+) \| ([^|]+) \|$", section, re.MULTILINE))
    machine = re.search(r"^Measured on (.*?)\.\n\n", section, re.MULTILINE | re.DOTALL)
    if machine is None:
        raise ValueError("the manual does not say what it was measured on")
    found = {
        kind: {name: _number(rows.pop(text, None), text) for name, text in texts_of(kind).items()}
        for kind in (Figures, Assumptions)
    }
    also = {name: value for name, value in rows.items() if name not in {"---", "measured", "assumed"}}
    return Section(
        machine=" ".join(machine[1].split()),
        figures=Figures(**found[Figures]),
        assumed=Assumptions(**found[Assumptions]),
        also=also,
    )


def as_stated(figures: Figures) -> Figures:
    """The same, rounded to what the manual shows."""
    return Figures(**{name: _number(show(round(value)), name) for name, value in asdict(figures).items()})


def _number(text: str | None, name: str) -> float:
    if text is None:
        raise ValueError(f"the manual does not state: {name}")
    return float(text.replace(",", ""))


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |".replace("|  |", "| |")
