"""Records: what is made once and never changed, as each request makes a dozen of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeVar

from typing_extensions import dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def record(cls: type[T]) -> type[T]:
    """A dataclass with slots, which the type checker takes for frozen, and which hashes and compares by its fields.

    Frozen at run time as well, each field would be set through ``object.__setattr__``: that took a twentieth of the
    gateway's work on a small answer.
    """
    return dataclass(slots=True, unsafe_hash=True)(cls)
