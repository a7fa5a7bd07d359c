from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap

import pytest

from proxy.machine.segment import Segment, SegmentFullError


def test_what_one_process_has_written_another_reads_although_it_was_killed() -> None:
    segment = Segment.create(65_536)
    program = textwrap.dedent(
        """
        import os, signal, sys
        from proxy.machine.segment import Segment
        segment = Segment(int(sys.argv[1]))
        one, three = segment.add(b"one", 1), segment.add(b"three", 3)
        one[0] += 41
        one[0] += 1
        three[2] = 0.5
        os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    command = [sys.executable, "-c", program, str(segment.descriptor)]
    ended = subprocess.run(command, pass_fds=[segment.descriptor], timeout=30, check=False)
    assert ended.returncode == -signal.SIGKILL
    assert [(head, list(numbers)) for head, numbers in segment.series()] == [(b"one", [42.0]), (b"three", [0, 0, 0.5])]


def test_one_that_opens_it_again_adds_behind_what_is_there() -> None:
    first = Segment.create(4_096)
    first.add(b"a", 1)[0] = 1
    second = Segment(os.dup(first.descriptor))
    second.add(b"bb", 2)[1] = 2
    assert [(head, list(numbers)) for head, numbers in first.series()] == [(b"a", [1]), (b"bb", [0, 2])]


@pytest.mark.parametrize("head", [b"", b"x", b"x" * 7, b"x" * 8, b"x" * 9])
def test_numbers_stand_apart_from_heads_of_every_length(head: bytes) -> None:
    segment = Segment.create(4_096)
    for _ in range(3):
        segment.add(head, 2)[:] = memoryview(bytearray(b"\xff" * 16)).cast("d")
    assert [known for known, _ in segment.series()] == [head] * 3


def test_a_full_one_takes_no_more_and_keeps_what_it_has() -> None:
    segment = Segment.create(4_096)
    fitting = 4_096 // (16 + 64)
    for _ in range(fitting):
        segment.add(b"head", 8)[7] = 1
    with pytest.raises(SegmentFullError):
        segment.add(b"head", 8)
    assert [numbers[7] for _, numbers in segment.series()] == [1] * fitting
