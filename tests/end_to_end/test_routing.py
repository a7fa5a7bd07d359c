from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.deployments import SPARE, deployed
from tests.support.gateways import (
    RunningGateway,
    SampleProvider,
    sample_provider,
)
from tests.support.processes import free_port, wait_for


@contextmanager
def failing(folder: Path, *flags: str) -> Iterator[SampleProvider]:
    folder.mkdir(exist_ok=True)
    with sample_provider(folder, *flags) as running:
        yield running


def check_one_charge(gateway: RunningGateway, key: str, provider: str, attempts: int) -> None:
    (entry,) = gateway.ledger(key)
    assert (entry["outcome"], entry["images"], entry["charged"], entry["provider"]) == ("delivered", 1, 5_000, provider)
    assert entry.get("attempts", 1) == attempts
    gateway.check_books(key)


@pytest.mark.parametrize(
    ("flags", "settings", "reason"),
    [
        (["--status", "429"], {}, "rate_limited"),
        (["--status", "503"], {}, "unavailable"),
        (["--status", "502"], {"retry_bad_gateway": True}, "bad_gateway"),
        (["--delay-ms", "3000"], {"retry_late_first_byte": True, "first_byte_timeout": 0.3}, "late_first_byte"),
        (None, {}, "unreachable"),
    ],
)
def test_another_takes_over(
    quiet_provider: SampleProvider, tmp_path: Path, flags: list[str] | None, settings: dict[str, Any], reason: str
) -> None:
    with ExitStack() as stack:
        url = f"http://127.0.0.1:{free_port()}"
        if flags is not None:
            url = stack.enter_context(failing(tmp_path / "first", *flags)).url
        first = {"url": url, "provider": settings}
        gateway = stack.enter_context(deployed(tmp_path, first, {"url": quiet_provider.url, "deployment": SPARE}))
        key = gateway.make_key(100_000)
        answer = gateway.generate(key)
        assert (answer.status, answer.headers["x-lightmeter-attempts"]) == (200, "2")
        check_one_charge(gateway, key, "place1", 2)
        assert len(quiet_provider.requests()) == 1
        metrics = gateway.metrics()
        assert f'lightmeter_retries_total{{reason="{reason}"}} 1.0' in metrics
        assert re.search(r'upstream_attempts_total\{model="acme/image-1",provider="place1",result="ok"\} 1.0', metrics)
        wait_for(lambda: '"attempts":2' in gateway.server.output, "the request's line")


@pytest.mark.parametrize(
    ("flags", "settings", "status"),
    [
        (["--status", "500"], {}, 502),
        (["--status", "502"], {}, 502),
        (["--status", "504"], {"retry_late_first_byte": True}, 504),
        (["--status", "401"], {}, 502),
        (["--status", "400"], {}, 400),
        (["--delay-ms", "2000"], {"first_byte_timeout": 0.3}, 504),
        (["--drop-connection"], {"retry_bad_gateway": True, "retry_late_first_byte": True}, 502),
        (["--malformed"], {"retry_bad_gateway": True, "retry_late_first_byte": True}, 502),
        (["--truncate-after", "40"], {"retry_bad_gateway": True, "retry_late_first_byte": True}, 502),
    ],
)
def test_what_may_have_been_generated_is_never_asked_for_again(
    quiet_provider: SampleProvider, tmp_path: Path, flags: list[str], settings: dict[str, Any], status: int
) -> None:
    with (
        failing(tmp_path / "first", *flags) as first,
        deployed(
            tmp_path, {"url": first.url, "provider": settings}, {"url": quiet_provider.url, "deployment": SPARE}
        ) as gateway,
    ):
        key = gateway.make_key(100_000)
        answer = gateway.generate(key)
        assert (answer.status, answer.headers["x-lightmeter-attempts"]) == (status, "1")
        assert quiet_provider.requests() == []
        (entry,) = gateway.ledger(key)
        assert entry["charged"] == 0
        gateway.check_books(key)


def test_a_breaker_opens_and_lets_a_probe_through_later(quiet_provider: SampleProvider, tmp_path: Path) -> None:
    port = free_port()
    away = {"url": f"http://127.0.0.1:{port}"}
    with deployed(tmp_path, away, {"url": quiet_provider.url, "deployment": SPARE}) as gateway:
        key = gateway.make_key()
        attempts = [gateway.generate(key).headers["x-lightmeter-attempts"] for _ in range(8)]
        assert attempts == ["2"] * 5 + ["1"] * 3
        state = 'lightmeter_deployment_state{model="acme/image-1",provider="place0"}'
        assert f"{state} 2.0" in gateway.metrics()
        assert state.replace("place0", "place1") + " 0.0" in gateway.metrics()
        (tmp_path / "again").mkdir()
        with sample_provider(tmp_path / "again", "--port", str(port)) as again:
            wait_for(lambda: f"{state} 1.0" in gateway.metrics(), "the breaker to be half-open")
            for _ in range(2):
                assert gateway.generate(key).headers["x-lightmeter-attempts"] == "1"
            assert f"{state} 0.0" in gateway.metrics()
            assert len(again.requests()) == 2
        gateway.check_books(key)


def test_nobody_can_be_reached(tmp_path: Path) -> None:
    places = [{"url": f"http://127.0.0.1:{free_port()}"} for _ in range(2)]
    with deployed(tmp_path, *places) as gateway:
        key = gateway.make_key(100_000)
        answers = [gateway.generate(key) for _ in range(6)]
        assert {(answer.status, answer.json["error"]["code"]) for answer in answers} == {(502, "upstream_error")}
        assert [answer.headers["x-lightmeter-attempts"] for answer in answers] == ["2"] * 5 + ["0"]
        assert 1 <= int(answers[-1].headers["Retry-After"]) <= 5
        assert {(entry["outcome"], entry["charged"]) for entry in gateway.ledger(key)} == {("unreachable", 0)}
        gateway.check_books(key)


def test_a_pause_that_every_provider_asks_for_is_passed_on(tmp_path: Path) -> None:
    with (
        failing(tmp_path / "first", "--status", "429") as first,
        failing(tmp_path / "second", "--status", "429") as second,
        deployed(tmp_path, {"url": first.url}, {"url": second.url}) as gateway,
    ):
        key = gateway.make_key(100_000)
        answers = [gateway.generate(key) for _ in range(3)]
        assert [answer.json["error"]["code"] for answer in answers] == ["upstream_rate_limit"] * 3
        assert [answer.headers["x-lightmeter-attempts"] for answer in answers] == ["2", "0", "0"]
        assert 1 <= int(answers[-1].headers["Retry-After"]) <= 7
        assert len(first.requests()) == len(second.requests()) == 1
        assert {(entry["outcome"], entry["charged"]) for entry in gateway.ledger(key)} == {("refused", 0)}
        gateway.check_books(key)


def test_weights_share_and_one_provider_has_no_new_header(
    gateway: RunningGateway, quiet_provider: SampleProvider, tmp_path: Path
) -> None:
    assert "x-lightmeter-attempts" not in gateway.generate(gateway.make_key()).headers
    with (
        failing(tmp_path / "heavy") as heavy,
        deployed(tmp_path, {"url": heavy.url, "deployment": {"weight": 3}}, {"url": quiet_provider.url}) as routed,
    ):
        quiet_provider.clear()
        key = routed.make_key()
        assert {routed.generate(key).headers["x-lightmeter-attempts"] for _ in range(8)} == {"1"}
        assert (len(heavy.requests()), len(quiet_provider.requests())) == (6, 2)
