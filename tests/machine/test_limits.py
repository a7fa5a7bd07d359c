from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap

from proxy.machine.limits import Board, SharedLimits
from proxy.machine.segment import Segment


def test_four_processes_never_have_more_than_the_limit_together() -> None:
    board = Board(Segment.create())
    program = textwrap.dedent(
        """
        import sys
        from proxy.machine.limits import Board
        from proxy.machine.segment import Segment
        count = Board(Segment(int(sys.argv[1]))).count("room", int(sys.argv[2]))
        taken = most = 0
        sys.stdin.read()
        for _ in range(3_000):
            if count.take(1, 5):
                taken += 1
                most = max(most, count.used)
                if taken % 3:
                    count.give(1)
                    taken -= 1
        print(taken, most)
        """
    )
    descriptor = board.segment.descriptor
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(descriptor), str(column)],
            pass_fds=[descriptor],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for column in range(4)
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.close()
        process.stdin = None
    told = [tuple(map(int, process.communicate(timeout=30)[0].split())) for process in processes]
    assert sum(taken for taken, _ in told) == board.count("room", 0).used <= 5
    assert max(most for _, most in told) <= 5


def test_what_a_dead_process_had_is_free_again() -> None:
    board = Board(Segment.create())
    one, other = board.count("bytes", 0), board.count("bytes", 1)
    assert one.take(70, 100)
    assert not other.take(31, 100)
    assert other.take(30, 100)
    board.clear(0)
    assert (other.used, other.own) == (30, 30)
    assert other.take(70, 100)


async def test_one_that_waits_gets_what_another_process_gives_back() -> None:
    board = Board(Segment.create())
    theirs, ours = (SharedLimits(board, column).semaphore("provider", 1) for column in (0, 1))
    await theirs.acquire()
    assert ours.locked()
    waiting = asyncio.create_task(ours.acquire())
    await asyncio.sleep(0.03)
    assert not waiting.done()
    theirs.release()
    async with asyncio.timeout(5):
        await waiting
    assert theirs.locked()


def test_only_processes_that_accept_are_left_a_connection() -> None:
    board = Board(Segment.create())
    one, other = SharedLimits(board, 0), SharedLimits(board, 1)
    one.accepts(accepting=True)
    assert not one.has_more_connections(3)
    other.accepts(accepting=True)
    assert one.has_more_connections(3)
    assert not other.has_more_connections(3)
    assert not one.has_more_connections(3)
    other.accepts(accepting=False)
    assert not one.has_more_connections(4)
