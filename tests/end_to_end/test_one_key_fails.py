"""What one key's requests do to a model's deployments, others do not feel, however they end."""

from __future__ import annotations

from itertools import cycle, islice
from pathlib import Path

import pytest

from tests.support.deployments import deployed
from tests.support.gateways import SampleProvider, sample_provider
from tests.support.processes import wait_for
from tests.support.scripted_provider import Reply, scripted_provider

STATE = 'lightmeter_deployment_state{model="acme/image-1",provider="place0"}'


@pytest.mark.parametrize("behaviour", ["status=500", "malformed", "status=503", "drop_connection"])
def test_one_whose_requests_all_fail_takes_no_deployment_from_another(
    quiet_provider: SampleProvider, tmp_path: Path, behaviour: str
) -> None:
    with (
        sample_provider(tmp_path) as second,
        deployed(tmp_path, {"url": quiet_provider.url}, {"url": second.url}) as gateway,
    ):
        poisoner, other = gateway.make_key(), gateway.make_key(team="globex")
        failed = []
        for _ in range(30):
            failed.append(gateway.generate(poisoner, prompt=f"[sample {behaviour}] a cube"))
            assert gateway.generate(other).status == 200
        assert {answer.status for answer in failed} == {502}
        # Its own breakers keep it out, and the others are let through.
        assert failed[-1].headers["x-lightmeter-attempts"] == "0"
        assert [gateway.generate(other).status for _ in range(10)] == [200] * 10
        assert f"{STATE} 0.0" in gateway.metrics()
        gateway.check_books(poisoner)
        gateway.check_books(other)


def test_who_comes_after_a_key_that_asked_alone_and_failed_finds_out_for_itself(
    quiet_provider: SampleProvider, tmp_path: Path
) -> None:
    with (
        sample_provider(tmp_path) as second,
        deployed(tmp_path, {"url": quiet_provider.url}, {"url": second.url}) as gateway,
    ):
        poisoner, other = gateway.make_key(), gateway.make_key(team="globex")
        failed = [gateway.generate(poisoner, prompt="[sample status=500] a cube") for _ in range(30)]
        attempts = [answer.headers["x-lightmeter-attempts"] for answer in failed]
        assert (attempts[:10], attempts[-1]) == (["1"] * 10, "0")
        assert f"{STATE} 2.0" in gateway.metrics()
        assert [gateway.generate(other).status for _ in range(10)] == [200] * 10
        assert f"{STATE} 0.0" in gateway.metrics()


def test_where_every_key_fails_nobody_is_sent_there(quiet_provider: SampleProvider, tmp_path: Path) -> None:
    with (
        sample_provider(tmp_path) as second,
        deployed(tmp_path, {"url": quiet_provider.url}, {"url": second.url}) as gateway,
    ):
        keys = [gateway.make_key(team=team) for team in ("acme", "globex", "initech")]
        for key in islice(cycle(keys), 10):
            answer = gateway.generate(key, prompt="[sample status=500] a cube")
            assert (answer.status, answer.headers["x-lightmeter-attempts"]) == (502, "1")
        newcomer = gateway.generate(gateway.make_key(team="hooli"))
        assert (newcomer.status, newcomer.headers["x-lightmeter-attempts"]) == (502, "0")
        assert 1 <= int(newcomer.headers["Retry-After"]) <= 5
        assert f"{STATE} 2.0" in gateway.metrics()


def test_a_long_pause_that_one_key_was_told_of_is_a_short_one_for_others(tmp_path: Path) -> None:
    with (
        scripted_provider(lambda _: Reply(429, {"Retry-After": "300"})) as first,
        scripted_provider(lambda _: Reply(429, {"Retry-After": "300"})) as second,
        deployed(tmp_path, {"url": first.url}, {"url": second.url}) as gateway,
    ):
        limited, other = gateway.make_key(), gateway.make_key(team="globex")
        assert gateway.generate(limited).headers["x-lightmeter-attempts"] == "2"
        waits = gateway.generate(other)
        assert (waits.status, waits.headers["x-lightmeter-attempts"]) == (429, "0")
        assert 1 <= int(waits.headers["Retry-After"]) <= 5
        first.script = second.script = lambda _: Reply()
        wait_for(lambda: gateway.generate(other).status == 200, "the end of the short pause")
        still = gateway.generate(limited)
        assert (still.status, still.headers["x-lightmeter-attempts"]) == (429, "0")
        assert 250 <= int(still.headers["Retry-After"]) <= 300
        gateway.check_books(limited)
        gateway.check_books(other)


def test_a_long_pause_that_two_keys_were_told_of_is_everybodys(tmp_path: Path) -> None:
    with (
        scripted_provider(lambda _: Reply(429, {"Retry-After": "300"})) as provider,
        deployed(tmp_path, {"url": provider.url}) as gateway,
    ):
        keys = [gateway.make_key(team=team) for team in ("acme", "globex", "initech")]
        assert gateway.generate(keys[0]).status == 429
        wait_for(lambda: gateway.generate(keys[1]).headers["x-lightmeter-attempts"] == "1", "the second to be told")
        newcomer = gateway.generate(keys[2])
        assert (newcomer.status, newcomer.headers["x-lightmeter-attempts"]) == (429, "0")
        assert 250 <= int(newcomer.headers["Retry-After"]) <= 300
        assert provider.received == 2
