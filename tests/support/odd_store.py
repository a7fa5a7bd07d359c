"""A store that raises what no store should, before or after it did what it was asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from proxy.metering.store import Store

ODD: Sequence[type[BaseException]] = (KeyError, TypeError, ValueError, IndexError, RuntimeError, MemoryError)
"""What a reply of another shape, or a bug of ours, is met by."""


class OddStore:
    """Otherwise the store that it stands before."""

    def __init__(self, store: Store) -> None:
        """Raise nothing yet."""
        self._store = store
        self.raises: dict[str, BaseException] = {}
        self.after = False
        """Whether the call is made before it raises."""

    def __getattr__(self, name: str) -> Any:
        """A method of the store's."""
        method: Callable[..., Any] = getattr(self._store, name)
        if name not in ("admit", "settle", "void", "renew"):
            return method

        async def call(*arguments: Any, **named: Any) -> Any:
            error = self.raises.get(name)
            if error is None or self.after:
                result = await method(*arguments, **named)
                if error is None:
                    return result
            raise error

        return call
