from __future__ import annotations

from collections.abc import Iterator

import pytest

from proxy.web.even_parts import FIRST_PART_BYTES, LEAST_PART_BYTES, PART_S, EvenParts


class Reader:
    """Takes so many seconds for each byte, by a clock of its own."""

    def __init__(self, seconds_a_byte: float) -> None:
        self.seconds_a_byte = seconds_a_byte
        self.now = 0.0
        self.parts: list[bytes] = []

    def read(self, part: bytes) -> bytes:
        self.parts.append(part)
        self.now += len(part) * self.seconds_a_byte
        return part.upper()

    def clock(self) -> float:
        return self.now


def pieces() -> Iterator[bytes]:
    for number in range(20):
        yield bytes([ord("a") + number]) * 65_536


@pytest.mark.parametrize("seconds_a_byte", [0.0, 1e-9, 1e-7, 2e-6, 1e-3])
def test_nothing_is_lost_and_no_part_takes_long(seconds_a_byte: float) -> None:
    reader = Reader(seconds_a_byte)
    parts = EvenParts(reader.read, reader.clock)
    out = [read for piece in pieces() for read in parts.read(piece)]
    assert b"".join(out) == b"".join(pieces()).upper()
    limit = max(PART_S / seconds_a_byte if seconds_a_byte else 65_536, LEAST_PART_BYTES)
    assert max(map(len, reader.parts[1:])) <= min(limit, 65_536)
    assert len(reader.parts[0]) <= FIRST_PART_BYTES


def test_an_image_is_cut_once_and_others_have_their_turn_where_reading_takes_long() -> None:
    fast, slow = Reader(1e-9), Reader(1e-6)
    images, events = EvenParts(fast.read, fast.clock), EvenParts(slow.read, slow.clock)
    for piece in pieces():
        assert all(not images.is_turn_due for _ in images.read(piece))
    assert len(fast.parts) == 21
    assert all(events.is_turn_due for _ in events.read(next(pieces())))


def test_the_pace_is_that_of_the_part_before() -> None:
    reader = Reader(1e-5)
    parts = EvenParts(reader.read, reader.clock)
    list(parts.read(b"a" * 65_536))
    assert len(reader.parts[-2]) <= LEAST_PART_BYTES
    reader.seconds_a_byte = 1e-9
    list(parts.read(b"a" * 65_536))
    list(parts.read(b"a" * 65_536))
    assert len(reader.parts[-1]) == 65_536
