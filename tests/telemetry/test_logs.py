from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import perf_counter, time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.telemetry.log_writer import LogWriter
from proxy.telemetry.logs import RequestLog, _time
from proxy.telemetry.observation import Observation


@given(at=st.integers(0, 4_000_000_000_000_000))
def test_the_time_of_a_line_is_in_utc_to_the_microsecond(at: int) -> None:
    text = _time(at / 1_000_000)
    assert len(text) == len("2026-01-01T00:00:00.000000+00:00")
    read = datetime.fromisoformat(text)
    assert read.utcoffset() == timedelta(0)
    assert abs(read - datetime.fromtimestamp(at / 1_000_000, UTC)) <= timedelta(microseconds=1)


async def test_a_request_is_one_line_with_its_time(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("wb") as file:
        writer = LogWriter(os.dup(file.fileno()))
        log, before = RequestLog(writer), time()
        log.write(Observation("req_1", "/v1/images/generations", started=perf_counter() - 0.25), perf_counter())
        log.flush()
        writer.flush()
    (line,) = map(json.loads, path.read_text().splitlines())
    assert before - 1e-3 <= datetime.fromisoformat(line["time"]).timestamp() <= time()
    assert (line["message"], line["request_id"], line["total_ms"]) == ("request", "req_1", pytest.approx(250, abs=50))
