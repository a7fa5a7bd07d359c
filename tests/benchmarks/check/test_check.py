"""The check's own arithmetic, words and parts. Nothing is counted here: CI runs the check itself."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from tests.benchmarks import provider
from tests.benchmarks.check import baseline, verdict
from tests.benchmarks.check.__main__ import merge
from tests.benchmarks.check.callgrind import functions_of, instructions_of
from tests.benchmarks.check.counting import Counts
from tests.benchmarks.check.driving import PIECE_BYTES, Client, PacedConnection, Passage
from tests.benchmarks.check.other import NoSuchTreeError, other_tree
from tests.benchmarks.check.slowly import SLOWER, SlowLoop
from tests.benchmarks.check.verdict import Change
from tests.support.processes import ROOT, python_module

DUMP = """\
# callgrind format
version: 1
creator: callgrind-3.19.0
part: 2
positions: line
events: Ir
summary: 1234

ob=(1) /usr/lib/libpython3.11.so
fl=(1) ceval.c
fn=(1) _PyEval_EvalFrameDefault
10 100
+2 20
cob=(2) /usr/lib/orjson.so
cfi=(2) ???
cfn=(2) 0x0000000000013cc0
calls=3 0
12 900
* 5

fn=(3) _PyEval_EvalFrameDefault'2
-1 50
ob=(2)
fn=(2)
0 900
totals: 1175
"""

# --- What callgrind writes --------------------------------------------------------------------------------------------


def test_a_dump_tells_its_total() -> None:
    assert instructions_of(DUMP) == 1_175
    with pytest.raises(ValueError, match="no total"):
        instructions_of("events: Ir\n")


def test_a_function_is_charged_with_its_own_instructions_not_with_those_of_the_called() -> None:
    assert functions_of(DUMP) == {"_PyEval_EvalFrameDefault": 175, "orjson.so 0x0000000000013cc0": 900}


# --- The verdict ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("now", "is_allowed"), [(104, True), (106, False), (50, True)])
def test_five_percent_more_are_allowed(now: float, is_allowed: bool) -> None:
    change = Change("small", now, 100)
    assert change.is_allowed is is_allowed
    assert bool(verdict.refusal([change], "1.0.0", is_compared_in_run=False)) is not is_allowed


def test_a_ratio_is_that_of_one_case() -> None:
    found = verdict.ratios({"small": 900, "large": 20}, {"small": 450, "large": 80})
    assert found == {"small": 2.0, "large": 0.25}
    changes = verdict.changes_of_ratios(found, {"small": 1.0, "large": 0.25, "gone": 7.0})
    assert changes == [Change("small", 2.0, 1.0), Change("large", 0.25, 0.25)]
    with pytest.raises(KeyError):
        verdict.changes_of_ratios(found, {"small": 1.0})


def test_a_round_that_was_slow_for_both_changes_nothing() -> None:
    change = verdict.change_of_rounds("small", [110, 330, 110], [100, 300, 100])
    assert change.share == pytest.approx(0.1)
    assert change.now == pytest.approx(110)
    assert change.before == pytest.approx(100)


def test_a_refusal_says_which_by_how_much_and_what_to_run() -> None:
    changes = [Change("small", 1.2, 1.0), Change("large", 1.0, 1.0)]
    words = verdict.refusal(changes, "1.0.0", is_compared_in_run=False)
    assert "small takes 20.0% more than 1.0.0" in words
    assert "large" not in words
    assert 'make bench-check BESIDE=COMMIT ARGS="--functions --only small"' in words
    assert "BESIDE" not in verdict.refusal(changes, "1.0.0", is_compared_in_run=True)
    table = "\n".join(verdict.lines(changes, "us", "1.0.0"))
    assert "+20.0%   past the 5% that are allowed" in table
    assert "+0.0%\n" in table + "\n"


def test_functions_are_those_that_take_most_or_have_changed_most() -> None:
    now, before = Counter(parse=500, write=100), Counter(parse=490, write=400, gone=30)
    assert list(verdict.function_lines(now, None, 10)) == ["            50  parse", "            10  write"]
    changed = list(verdict.function_lines(now, before, 10))
    assert [line.split()[-1] for line in changed] == ["write", "gone", "parse"]
    assert changed[0].split()[:3] == ["-30", "of", "10"]


def test_of_what_was_counted_again_the_least_counts_and_the_rest_stays() -> None:
    first = {"lightmeter": Counts({"small": 10.0, "large": 30.0}), "bare": Counts({"small": 5.0, "large": 9.0})}
    again = {"lightmeter": Counts({"large": 20.0}), "bare": Counts({"large": 10.0})}
    merged = merge([first, again], min)
    assert merged["lightmeter"].instructions == {"small": 10.0, "large": 20.0}
    assert merged["bare"].instructions == {"small": 5.0, "large": 9.0}


# --- The baseline -----------------------------------------------------------------------------------------------------


def test_what_is_recorded_is_read_again() -> None:
    figures = {"lightmeter": {"small": 2.0}, "bare": {"small": 1.0}}
    first = baseline.Baseline("1.0.0", {}).with_figures("1.0.0", "cpython-3.11", baseline.entry_of(figures))
    both = baseline.read(baseline.write(first)).with_figures("1.0.0", "cpython-3.12", baseline.entry_of(figures))
    assert both.figures("cpython-3.11") == both.figures("cpython-3.12") == figures
    assert both.figures("cpython-3.13") is None
    later = both.with_figures("1.1.0", "cpython-3.12", baseline.entry_of(figures))
    assert (later.version, list(later.recorded)) == ("1.1.0", ["cpython-3.12"])


def test_there_is_a_baseline_with_every_case() -> None:
    last = baseline.read(baseline.PATH.read_text())
    assert last.recorded
    for interpreter in last.recorded:
        figures = last.figures(interpreter)
        assert figures is not None
        assert {name: list(cases) for name, cases in figures.items()} == {
            name: ["small", "large", "events"] for name in ("lightmeter", "bare")
        }


# --- Another tree -----------------------------------------------------------------------------------------------------


def test_another_tree_is_a_folder_or_a_commit(tmp_path: Path) -> None:
    with other_tree(str(tmp_path)) as folder:
        assert folder == tmp_path
    with (
        pytest.raises(NoSuchTreeError, match="nobody-has-made-this is no folder, and no commit"),
        other_tree("nobody-has-made-this"),
    ):
        pass
    if (ROOT / ".git").exists():
        with other_tree("HEAD") as folder:
            assert (folder / "proxy" / "__init__.py").is_file()
        assert not folder.exists()


# --- What runs under callgrind ----------------------------------------------------------------------------------------


def test_a_slow_clock_goes_on_from_where_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = SlowLoop()
    try:
        assert loop.call_later(100, print).when() - loop.time() == pytest.approx(100, abs=10)
        since_s = loop.time()
        monkeypatch.setattr(SlowLoop, "slow_since_s", since_s)
        assert loop.time() == pytest.approx(since_s, abs=10)
        monkeypatch.setattr(SlowLoop, "slow_since_s", since_s - 1_000 * SLOWER)
        assert loop.time() - SlowLoop.slow_since_s == pytest.approx(1_000, abs=10)  # type: ignore[operator]
    finally:
        loop.close()


async def test_a_large_answer_comes_whole_piece_by_piece() -> None:
    request = provider.Request("/v1/images", b"{}")
    bodies = {"large": b"x" * (5 * PIECE_BYTES + 7), "small": b"y"}
    loop, passage, answers = asyncio.get_running_loop(), Passage(), provider.Provider("http://127.0.0.1:1")
    server = await loop.create_server(lambda: PacedConnection(answers, passage), "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        _, client = await loop.create_connection(lambda: Client(passage), "127.0.0.1", port)
        for body in bodies.values():
            for kind in ("application/json", "text/event-stream"):
                answers.answers[request] = provider.write_answer(200, kind, body)
                await client.ask(b"POST /v1/images HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}")
        answers.answers[request] = provider.write_answer(503, "application/json", b"away")
        with pytest.raises(RuntimeError, match="503"):
            await client.ask(b"POST /v1/images HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}")
        client.transport.close()


@pytest.mark.parametrize(("required", "status"), [("0", 0), ("1", 1)])
def test_without_valgrind_it_says_how_to_get_it(required: str, status: int) -> None:
    ended = subprocess.run(
        python_module("tests.benchmarks.check"),
        cwd=ROOT,
        env={**os.environ, "PATH": "", "LIGHTMETER_TEST_REQUIRE_ALL": required},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == status
    assert "valgrind is missing, and nothing was counted: apt-get install valgrind" in ended.stdout + ended.stderr
