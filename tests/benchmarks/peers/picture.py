"""The same as a picture: bars of what goes through, in the colour of how a budget holds. Pure.

SVG without a script or a font of its own, legible on light and on dark.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from xml.sax.saxutils import escape

from tests.benchmarks.peers.figures import Enforcement, Found, Run, cpu_us, gigabytes, rate

WIDTH, MARGIN = 900, 24
NAMES_WIDTH, FIGURES_WIDTH = 200, 76
ROW, BAR, TITLE = 26, 16, 40
LEGEND_COLUMNS = (0, 180, 460, 580)

LEGEND = {
    Enforcement.EXACT: "budget holds exactly",
    Enforcement.LATE: "budget holds late, or not at every price",
    Enforcement.NONE: "no budget",
    Enforcement.UNKNOWN: "unclear",
}
STYLE = """
text { font: 13px system-ui, -apple-system, "Segoe UI", sans-serif; fill: #1f2328 }
.title { font-weight: 600 } .note { fill: #59636e }
.back { fill: #ffffff; stroke: #d1d9e0 }
.exact { fill: #1a7f37 } .late { fill: #bf8700 } .none { fill: #818b98 } .unknown { fill: #cf222e }
@media (prefers-color-scheme: dark) {
text { fill: #f0f6fc } .note { fill: #9198a1 } .back { fill: #0d1117; stroke: #3d444d }
.exact { fill: #3fb950 } .late { fill: #d29922 } .none { fill: #656c76 } .unknown { fill: #f85149 }
}
"""


def draw(run: Run) -> str:
    """An SVG document."""
    names = run.names()
    found = run.found
    small = {name: rate(found[name].small) for name in names}
    large = {name: rate(found[name].large) for name in names}
    cpu = {name: cpu_us(found[name].small)[0] for name in names}
    colours = {name: how_it_holds(found[name]) for name in names}
    panels = (
        ("Small answers, requests/s: more is better", small, _whole),
        ("4 MB answers, GB/s: more is better", large, gigabytes),
        ("Small answers, µs of processor time for each: less is better", cpu, _whole),
    )
    height = MARGIN + sum(TITLE + ROW * len(names) for _ in panels) + 3 * ROW
    shapes: list[str] = []
    top = float(MARGIN)
    for title, values, write in panels:
        shapes += _panel(top, title, values, write, colours)
        top += TITLE + ROW * len(values)
    shapes += _legend(top + ROW, colours)
    shapes.append(_text(MARGIN, top + 2 * ROW + 4, f"{run.machine}, {run.measured}", "note"))
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
            ' role="img" aria-label="What goes through each gateway, and whether a budget holds">',
            f"<style>{STYLE}</style>",
            f'<rect class="back" x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="8"/>',
            *shapes,
            "</svg>",
            "",
        ]
    )


def how_it_holds(found: Found) -> Enforcement:
    """What became of its budgets: late where that differs from one to the next."""
    held = {budget.enforcement for budget in found.budgets.values()} or {Enforcement.NONE}
    return held.pop() if len(held) == 1 else Enforcement.LATE


def _whole(value: float) -> str:
    return f"{value:,.0f}"


def _panel(
    top: float,
    title: str,
    values: Mapping[str, float],
    write: Callable[[float], str],
    colours: Mapping[str, Enforcement],
) -> Iterator[str]:
    yield _text(MARGIN, top + 16, title, "title")
    room = WIDTH - 2 * MARGIN - NAMES_WIDTH - FIGURES_WIDTH
    most = max(values.values(), default=0.0) or 1.0
    left = MARGIN + NAMES_WIDTH
    for number, (name, value) in enumerate(values.items()):
        middle = top + TITLE - 8 + ROW * number
        # The smallest can still be seen.
        width = max(2.0, room * value / most)
        yield _text(MARGIN, middle + 9, name)
        yield (
            f'<rect class="{colours[name]}" x="{left}" y="{middle - BAR / 2 + 4:.0f}" width="{width:.1f}"'
            f' height="{BAR}" rx="2"/>'
        )
        yield _text(left + width + 8, middle + 9, write(value))


def _legend(middle: float, colours: Mapping[str, Enforcement]) -> Iterator[str]:
    shown = [each for each in LEGEND if each in colours.values()]
    for number, each in enumerate(shown):
        left = MARGIN + LEGEND_COLUMNS[number]
        yield f'<rect class="{each}" x="{left}" y="{middle - 11:.0f}" width="12" height="12" rx="2"/>'
        yield _text(left + 20, middle, LEGEND[each])


def _text(left: float, bottom: float, text: str, kind: str = "") -> str:
    style = f' class="{kind}"' if kind else ""
    return f'<text{style} x="{left:.0f}" y="{bottom:.0f}">{escape(text)}</text>'
