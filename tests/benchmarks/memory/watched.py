"""``lightmeter`` that writes down, once a second, how many tasks its event loop has: ``python -m`` this module.

The first argument is the file; the rest is for ``lightmeter``.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path

import uvloop

from proxy.cli import main

INTERVAL_S = 1.0


def watched(make: Callable[[], uvloop.Loop], path: Path) -> Callable[[], uvloop.Loop]:
    """Makes loops that ``make`` makes, each of which counts its tasks."""

    def make_watched() -> uvloop.Loop:
        loop = make()

        def count() -> None:
            # In one step, for it is read at any time.
            new = path.with_suffix(".new")
            new.write_text(str(len(asyncio.all_tasks(loop))))
            new.replace(path)
            loop.call_later(INTERVAL_S, count)

        loop.call_soon(count)
        return loop

    return make_watched


if __name__ == "__main__":
    uvloop.new_event_loop = watched(uvloop.new_event_loop, Path(sys.argv[1]))
    main(sys.argv[2:])
