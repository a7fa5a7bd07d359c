"""From counts to a verdict and its words. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

ALLOWED = 0.05
"""How much more than the last release a request may take."""
FUNCTIONS_SHOWN = 25


@dataclass(frozen=True, slots=True)
class Change:
    """What one kind of request costs, now and before, in one unit."""

    case: str
    now: float
    before: float

    @property
    def share(self) -> float:
        """How much more it is now, as a share of what it was; below 0 where it is less."""
        return self.now / self.before - 1

    @property
    def is_allowed(self) -> bool:
        return self.share <= ALLOWED


def changes_of_ratios(now: Mapping[str, float], before: Mapping[str, float]) -> list[Change]:
    """Case by case. Raises KeyError where a case has nothing to compare it with."""
    return [Change(case, value, before[case]) for case, value in now.items()]


def ratios(subject: Mapping[str, float], measure: Mapping[str, float]) -> dict[str, float]:
    """What ``subject`` takes of what ``measure`` takes, case by case."""
    return {case: value / measure[case] for case, value in subject.items()}


def change_of_rounds(case: str, now: Sequence[float], before: Sequence[float]) -> Change:
    """Of rounds whose two slices lay next to each other: the median of their ratios, told as what it is now."""
    usual = median(before)
    return Change(case, usual * median(one / other for one, other in zip(now, before, strict=True)), usual)


def lines(changes: Sequence[Change], unit: str, beside: str) -> Iterator[str]:
    """The table: each case, what it takes, what it took, and whether that is allowed."""
    yield f"{'':<10}{'this tree':>14}{beside:>24}{'change':>10}   ({unit})"
    for change in changes:
        words = "" if change.is_allowed else f"   past the {ALLOWED:.0%} that are allowed"
        yield f"{change.case:<10}{change.now:>14,.3f}{change.before:>24,.3f}{change.share:>+10.1%}{words}"


def refusal(changes: Sequence[Change], beside: str, *, is_compared_in_run: bool) -> str:
    """Why it fails, and how to see where it comes from; empty where all is allowed."""
    refused = [change for change in changes if not change.is_allowed]
    if not refused:
        return ""
    found = "; ".join(f"{change.case} takes {change.share:.1%} more than {beside}" for change in refused)
    options = (
        "--functions" if len(refused) == len(changes) else f"--functions --only {','.join(c.case for c in refused)}"
    )
    where = "" if is_compared_in_run else " BESIDE=COMMIT"
    hint = f'To see in which functions: make bench-check{where} ARGS="{options}"'
    return f"{found}. {ALLOWED:.0%} are allowed.\n{hint}"


def function_lines(now: Counter[str], before: Counter[str] | None, requests: int) -> Iterator[str]:
    """The functions that take most; beside another tree, those that have changed most. Instructions a request."""
    if before is None:
        for name, count in now.most_common(FUNCTIONS_SHOWN):
            yield f"{count / requests:>14,.0f}  {name}"
        return
    changed = {name: now[name] - before[name] for name in now | before}
    for name in sorted(changed, key=lambda name: -abs(changed[name]))[:FUNCTIONS_SHOWN]:
        yield f"{changed[name] / requests:>+14,.0f}  of {now[name] / requests:,.0f}  {name}"
