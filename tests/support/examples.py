"""How many examples a property is tried with."""

from __future__ import annotations

import os
from typing import Any

from hypothesis import settings

PROFILE = os.environ.get("LIGHTMETER_TESTS", "whole")
"""``whole``, or ``fast`` for a tenth of the examples: what ``make test-fast`` takes."""

PROFILES = {"whole": 1, "fast": 10}


def examples(number: int, **more: Any) -> settings:
    """Try a property with ``number`` of them, or a tenth in the fast profile; ``more`` is what Hypothesis knows."""
    return settings(max_examples=max(5, number // PROFILES[PROFILE]), **more)
