"""How processor time grows with the input, which one process measures of itself whatever else the machine does."""

from __future__ import annotations

import gc
from collections.abc import Callable
from time import process_time

NOISE_S = 0.01
"""Below this, figures of one machine at two moments differ by more than a factor of three."""

TRIES = 4


def seconds(work: Callable[[], object]) -> float:
    """Processor time that ``work`` takes, without the collector's, which grows with what else the process holds."""
    gc.disable()
    try:
        began = process_time()
        work()
        return process_time() - began
    finally:
        gc.enable()


def check_growth(work: Callable[[int], object], size: int) -> None:
    """Twice the input takes at most three times as long: a square would take four times, and a thousandfold later."""
    figures = []
    for _ in range(TRIES):
        single, double = seconds(lambda: work(size // 2)), seconds(lambda: work(size))
        figures.append((round(single, 4), round(double, 4)))
        if double <= max(NOISE_S, 3 * single):
            return
    raise AssertionError(f"the time for {size:,} and for half of it, each time: {figures}")
