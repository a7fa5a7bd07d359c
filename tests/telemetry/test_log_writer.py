"""The log's writer, on pipes whose other end is read, stands still, or is gone."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.telemetry.log_writer import PIECE_BYTES, LogWriter
from tests.support.processes import wait_for

LINE = b'{"message": "' + b"x" * 985 + b'"}\n'


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    yield reader, writer
    for end in (reader, writer):
        os.close(end)


def read_all(reader: int, writer: LogWriter) -> bytes:
    """All that comes until the writer has nothing left."""
    os.set_blocking(reader, False)
    found = b""
    while True:
        done = writer.flush(0.05)
        try:
            while piece := os.read(reader, PIECE_BYTES):
                found += piece
        except BlockingIOError:
            if done:
                return found


def test_lines_come_in_their_order(pipe: tuple[int, int]) -> None:
    writer = LogWriter(pipe[1])
    for number in range(1_000):
        writer.write(b"%d\n" % number)
    assert read_all(pipe[0], writer).split() == [b"%d" % number for number in range(1_000)]
    writer.close()
    assert writer.dropped_lines == 0


def test_a_reader_that_stands_still_keeps_nobody_and_is_told_what_was_dropped(pipe: tuple[int, int]) -> None:
    writer = LogWriter(pipe[1], waiting_bytes=100_000)
    began = time.monotonic()
    for _ in range(5_000):
        writer.write(LINE)
    assert time.monotonic() - began < 2
    dropped = writer.dropped_lines
    # At the most: what may wait, what the pipe holds, and the piece between them.
    assert 5_000 - (100_000 + 65_536 + len(LINE)) // len(LINE) - 1 <= dropped < 5_000
    assert not writer.flush(0.05)
    lines = read_all(pipe[0], writer).splitlines()
    told = [json.loads(line) for line in lines if b"dropped_lines" in line]
    assert sum(each["dropped_lines"] for each in told) == dropped
    assert len(lines) - len(told) + dropped == 5_000
    writer.write(b"after\n")
    assert read_all(pipe[0], writer) == b"after\n"
    writer.close()


def test_a_reader_that_stands_still_does_not_keep_the_end_of_the_process(pipe: tuple[int, int]) -> None:
    writer = LogWriter(pipe[1])
    writer.write(LINE * 200, 200)
    began = time.monotonic()
    writer.close(0.2)
    assert time.monotonic() - began < 2
    writer.write(LINE)
    assert writer.dropped_lines == 1
    os.set_blocking(pipe[0], False)
    # So that its thread ends with the test.
    wait_for(lambda: bool(os.read(pipe[0], PIECE_BYTES)), "what it has")


def test_a_pipe_that_others_made_non_blocking_loses_nothing(pipe: tuple[int, int]) -> None:
    os.set_blocking(pipe[1], False)
    writer = LogWriter(pipe[1])
    writer.write(LINE * 200, 200)
    assert read_all(pipe[0], writer) == LINE * 200
    writer.close()
    assert writer.dropped_lines == 0


def test_a_full_disk_and_a_reader_that_is_gone_count_as_dropped() -> None:
    reader, end = os.pipe()
    os.close(reader)
    full = os.open("/dev/full", os.O_WRONLY)
    for descriptor in (end, full):
        writer = LogWriter(descriptor)
        writer.write(b"one\ntwo\n", 2)
        assert writer.flush()
        assert writer.dropped_lines == 2
        writer.close()
        os.close(descriptor)


def test_it_says_what_is_missing_once_a_full_disk_has_room(tmp_path: Path) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    writer = LogWriter(full)
    own = writer._descriptor
    assert own is not None
    writer.write(b"lost\n")
    assert writer.flush()
    with (tmp_path / "log").open("ab") as room:
        os.dup2(room.fileno(), own)
    writer.write(b"kept\n")
    writer.close()
    os.close(full)
    first, second = (tmp_path / "log").read_bytes().splitlines()
    assert first == b"kept"
    assert json.loads(second)["dropped_lines"] == 1


def test_without_a_descriptor_nothing_is_written() -> None:
    writer = LogWriter(None)
    writer.write(b"one\n")
    assert writer.flush()
    writer.close()
    assert writer.dropped_lines == 0
