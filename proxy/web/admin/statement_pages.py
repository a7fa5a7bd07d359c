"""A statement as a page that prints well, and as CSV; both from what the admin API answers, so that all three agree."""

from __future__ import annotations

import csv
import io
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from html import escape
from typing import Any

LISTED = 100
"""Headings of each kind on a page: a thousand keys are for a spreadsheet, which has them all."""

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
CSV_COLUMNS = ("team", "month", "state", "section", "name", "entries", "images", "quota_units", "quota_units_usd")

STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff; max-width: 46rem; margin: 2rem auto;
  padding: 0 1rem; }
h1 { font-size: 1.5rem; margin: 0; }
h2 { font-size: 1.05rem; margin: 2rem 0 .5rem; break-after: avoid; }
.about { color: #555; margin: .25rem 0 1.5rem; }
.open { border-left: .25rem solid #b45309; padding-left: .75rem; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: .3rem .75rem .3rem 0; border-bottom: 1px solid #ddd; overflow-wrap: anywhere; }
th[scope=col] { border-bottom: 2px solid #1a1a1a; font-weight: 600; }
td.number, th.number { text-align: right; padding-right: 0; padding-left: .75rem; white-space: nowrap;
  font-variant-numeric: tabular-nums; }
tr { break-inside: avoid; }
thead { display: table-header-group; }
tr.total td, tr.total th { border-top: 2px solid #1a1a1a; font-weight: 600; }
.range { font: .85em/1.5 ui-monospace, monospace; overflow-wrap: anywhere; }
@page { size: A4; margin: 18mm 16mm; }
@media print { body { margin: 0; max-width: none; padding: 0; font-size: 10.5pt; } }
"""

STYLE_SHA256 = b64encode(sha256(STYLE.encode()).digest()).decode()

PAGE_POLICY = f"default-src 'none'; style-src 'sha256-{STYLE_SHA256}'; frame-ancestors 'none'; base-uri 'none'"
"""Content-Security-Policy of the page: it loads nothing, and runs nothing."""

_SECTIONS = (("By model", "by_model"), ("By key", "by_key"), ("By user", "by_user"), ("By tag", "by_tag"))
_TOTALS = (
    ("Charged", "charged"),
    ("Refunded", "refunded"),
    ("Total", "quota_units"),
)


def as_page(statement: Mapping[str, Any]) -> str:
    """The statement as one HTML document, with nothing outside of it."""
    has_usd = statement["units_per_usd"] is not None
    title = f"Statement of {statement['team']}, {statement['month']}"
    parts = [*_head(statement, title), *_totals(statement, has_usd=has_usd)]
    for heading, name in _SECTIONS:
        rows = [(escape(each) or "<i>not itemised</i>", sums) for each, sums in statement[name].items()]
        parts += _table(heading, _omitted(statement["headings_omitted"][name]), rows, has_usd=has_usd)
    late = [(escape(month), sums) for month, sums in statement["late"].items()]
    parts += _table("Late entries, by the month that their requests were admitted in", _LATE, late, has_usd=has_usd)
    parts += _footer(statement)
    body = "\n".join(parts)
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>{escape(title)}</title>\n'
        f"<style>{STYLE}</style>\n</head>\n<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def as_csv(statement: Mapping[str, Any]) -> str:
    """The statement as rows: its totals, then each model, each key, and what is late."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    about = (statement["team"], statement["month"], statement["state"])
    rows: list[tuple[str, str, Mapping[str, Any]]] = []
    for name in ("quota_units", "charged", "refunded", "overage", "granted"):
        sums: Mapping[str, Any] = {"quota_units": statement[name], "quota_units_usd": statement.get(f"{name}_usd")}
        whole = {"entries": statement["entries"], "images": statement["images"]} if name == "quota_units" else {}
        rows.append(("total", name, {**whole, **sums}))
    for section in (*(name for _, name in _SECTIONS), "late"):
        rows += [(section, name, sums) for name, sums in statement[section].items()]
    if statement["brought_forward"] is not None:
        rows.append(("brought_forward", "", statement["brought_forward"]))
    for section, name, sums in rows:
        cells = (sums.get(column) for column in CSV_COLUMNS[5:])
        writer.writerow([_cell(value) for value in (*about, section, name, *cells)])
    return text.getvalue()


def _cell(value: object) -> object:
    """As a spreadsheet shows it: it would take a text that begins so for a formula."""
    return (
        f"'{value}" if isinstance(value, str) and value.startswith(FORMULA_STARTS) and not _is_number(value) else value
    )


def _is_number(text: str) -> bool:
    return text.lstrip("-").replace(".", "", 1).isdigit()


# --- Parts of the page ------------------------------------------------------------------------------------------------

_LATE = (
    "Written after the month of their admission had ended. They are part of the total above, and of no other statement."
)


def _head(statement: Mapping[str, Any], title: str) -> Iterator[str]:
    yield f"<h1>{escape(title)}</h1>"
    if statement["state"] == "open":
        yield '<p class="about open">Preliminary: the month has not ended, and what is written until then comes in.</p>'
    else:
        yield f'<p class="about">Stated {escape(statement["stated_at"][:10])}. Months are UTC.</p>'


def _totals(statement: Mapping[str, Any], *, has_usd: bool) -> Iterator[str]:
    yield "<table>"
    yield _heading_row(("", "Quota units", *(["US dollars"] if has_usd else [])))
    yield "<tbody>"
    for label, name in _TOTALS:
        total = ' class="total"' if name == "quota_units" else ""
        sign = -1 if name == "refunded" else 1
        usd = [_minus(statement[f"{name}_usd"], sign)] if has_usd else []
        yield f'<tr{total}><th scope="row">{label}</th>{_numbers([_units(sign * statement[name]), *usd])}</tr>'
    yield "</tbody></table>"
    yield "<table><tbody>"
    overage = _units(statement["overage"]) + (f" ({statement['overage_usd']} US dollars)" if has_usd else "")
    for label, text in (
        ("Requests", _units(statement["requests"])),
        ("Images", _units(statement["images"])),
        ("Overage: charged beyond what was reserved, part of the total", overage),
        ("Granted: quota units added to limits, no charge", _units(statement["granted"])),
    ):
        yield f'<tr><th scope="row">{label}</th>{_numbers([text])}</tr>'
    yield "</tbody></table>"


def _table(heading: str, about: str, rows: Sequence[tuple[str, Mapping[str, Any]]], *, has_usd: bool) -> Iterator[str]:
    if not rows:
        return
    yield f"<h2>{heading}</h2>"
    if about:
        yield f'<p class="about">{about}</p>'
    yield "<table>"
    yield _heading_row(("", "Images", "Quota units", *(["US dollars"] if has_usd else [])))
    yield "<tbody>"
    for name, sums in rows:
        usd = [sums["quota_units_usd"]] if has_usd else []
        numbers = _numbers([_units(sums["images"]), _units(sums["quota_units"]), *usd])
        yield f'<tr><th scope="row">{name}</th>{numbers}</tr>'
    yield "</tbody></table>"


def _omitted(count: int) -> str:
    return f"The largest; {count:,} others are one line. JSON and CSV have all of them." if count else ""


def _footer(statement: Mapping[str, Any]) -> Iterator[str]:
    ledger = statement["ledger"]
    yield "<h2>What it adds up from</h2>"
    after = f"behind {escape(ledger['after'])}" if ledger["after"] else "from the beginning"
    if ledger["to"] is None or ledger["to"] == ledger["after"]:
        yield "<p>No entries of the ledger.</p>"
    else:
        yield (
            f'<p>{_units(statement["entries"])} entries of the ledger, <span class="range">{after}</span> up to '
            f'<span class="range">{escape(ledger["to"])}</span>. Each entry is in one statement.</p>'
        )
    if statement["brought_forward"] is not None:
        brought = statement["brought_forward"]
        yield (
            f"<p>{_units(brought['quota_units'])} quota units and {_units(brought['images'])} images of that were "
            "trimmed from the ledger before they were stated: only their sums by model are known.</p>"
        )
    if statement["units_per_usd"] is not None:
        yield f"<p>A US dollar was {escape(statement['units_per_usd'])} quota units.</p>"
    for entry in statement["late_entries"]:
        yield f'<p class="range">late: {escape(entry)}</p>'
    if statement["late_entries_omitted"]:
        yield f'<p class="range">and {_units(statement["late_entries_omitted"])} more late entries</p>'


def _heading_row(names: Sequence[str]) -> str:
    cells = "".join(f'<th scope="col" class="number">{name}</th>' for name in names[1:])
    return f"<thead><tr><td></td>{cells}</tr></thead>"


def _numbers(texts: Sequence[str]) -> str:
    return "".join(f'<td class="number">{escape(text)}</td>' for text in texts)


def _units(value: int) -> str:
    return f"{value:,}"


def _minus(usd: str, sign: int) -> str:
    return f"-{usd}" if sign < 0 and usd.strip("0.") and not usd.startswith("-") else usd
