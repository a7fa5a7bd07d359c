"""An event loop whose clock stands still while there is work, and jumps to the next timer where there is none."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, ParamSpec, TypeVar

T = TypeVar("T")
P = ParamSpec("P")


class VirtualLoop(asyncio.SelectorEventLoop):
    """Hours pass in milliseconds, and never a moment more than what is waited for. For code that opens no socket."""

    def __init__(self) -> None:
        super().__init__()
        self._now_s = 0.0

    def time(self) -> float:
        """Seconds since the loop was made."""
        return self._now_s

    def _run_once(self) -> None:
        if not self._ready and self._scheduled:  # type: ignore[attr-defined]
            self._now_s = max(self._now_s, self._scheduled[0].when())  # type: ignore[attr-defined]
        super()._run_once()  # type: ignore[misc]


def run(work: Coroutine[Any, Any, T]) -> T:
    """What ``work`` returns, run to its end in virtual time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(work)


def now_s() -> float:
    """Seconds of virtual time that have passed."""
    return asyncio.get_running_loop().time()


def virtually(test: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, T]:
    """A test that runs in virtual time; its fixtures are made outside of it."""

    @wraps(test)
    def ran(*arguments: P.args, **named: P.kwargs) -> T:
        return run(test(*arguments, **named))

    return ran
