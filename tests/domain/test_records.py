from __future__ import annotations

from dataclasses import field, replace

import pytest

from proxy.domain.records import record


@record
class Box:
    width: int
    height: int = 1
    notes: tuple[str, ...] = field(default=(), compare=False)


def test_a_record_is_what_its_fields_are() -> None:
    box = Box(3)
    assert (box, hash(box)) == (Box(3, 1, ("a",)), hash(Box(3, 1, ("b",))))
    assert box != Box(3, 2)
    assert replace(box, height=2) == Box(3, 2)
    assert repr(box) == "Box(width=3, height=1, notes=())"


def test_a_record_has_no_other_fields() -> None:
    with pytest.raises(AttributeError):
        setattr(Box(3), "depth", 1)  # noqa: B010 - the type checker refuses the statement
