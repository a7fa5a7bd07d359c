"""Limits of keys and teams over the wire: what refuses, when it passes, and what it costs the store."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest
import redis
from openai import OpenAI

from tests.support.gateways import RunningGateway, SampleProvider, configuration, running_gateway
from tests.support.processes import wait_for
from tests.support.stores import store_server

PRICE = 5_000
EVERY_LIMIT: dict[str, Any] = {
    "quota_units": 10**12,
    "quota_units_per_day": 10**12,
    "quota_units_per_month": 10**12,
    "requests_per_minute": 1_000_000,
    "images_per_minute": 1_000_000,
    "concurrent_requests": 1_000,
    "models": ["acme/*"],
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with store_server("redis", tmp_path_factory.mktemp("store")) as (url, _server):
        yield url


@pytest.fixture(scope="module")
def paced(store: str, provider: SampleProvider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    """A gateway that lets one second of a rate limit come at once."""
    folder: Path = tmp_path_factory.mktemp("paced")
    toml = configuration(store, provider.url, accounting={"burst_seconds": 1})
    with running_gateway(folder, toml, {"LIGHTMETER_SERVER_DATA_FOLDER": str(folder / "data")}) as running:
        yield running


def make_team(gateway: RunningGateway, team: str, **limits: Any) -> None:
    assert gateway.admin("POST", "/admin/v1/teams", body={"id": team, "limits": limits}).status == 201


def sdk(gateway: RunningGateway, key: str, **options: Any) -> OpenAI:
    return OpenAI(base_url=f"{gateway.url}/v1", api_key=key, **options)


def test_waiting_as_long_as_retry_after_says_succeeds(paced: RunningGateway) -> None:
    key = paced.make_key(requests_per_minute=60)
    first = paced.generate(key)
    assert first.status == 200
    assert first.headers["x-ratelimit-limit-requests"] == "60"
    assert first.headers["x-ratelimit-remaining-requests"] == "0"
    assert first.headers["x-ratelimit-reset-requests"] == "1s"
    refused = paced.generate(key)
    assert (refused.status, refused.json["error"]["code"]) == (429, "rate_limit_exceeded")
    assert "Rate limit reached for requests: the key may have 60 requests a minute" in refused.json["error"]["message"]
    assert "x-should-retry" not in refused.headers
    assert refused.headers["x-ratelimit-remaining-requests"] == "0"
    wait_s = int(refused.headers["Retry-After"])
    assert wait_s == 1
    time.sleep(wait_s)
    assert paced.generate(key).status == 200


def test_more_images_at_once_than_the_pace_ever_allows_is_told_as_that(paced: RunningGateway) -> None:
    key = paced.make_key(images_per_minute=120)
    assert paced.generate(key, n=2).headers["x-ratelimit-remaining-images"] == "0"
    refused = paced.generate(key, n=3)
    assert (refused.status, refused.json["error"]["code"]) == (429, "rate_limit_exceeded")
    assert "never 3 at once" in refused.json["error"]["message"]
    assert refused.headers["x-should-retry"] == "false"
    assert "Retry-After" not in refused.headers


def test_what_one_limit_refuses_takes_nothing_of_another(paced: RunningGateway) -> None:
    make_team(paced, "tight", quota_units=PRICE)
    key = paced.make_key(team="tight", requests_per_minute=60_000, quota_units_per_day=10 * PRICE)
    assert paced.generate(key, n=2).json["error"]["code"] == "insufficient_quota"
    assert paced.quota(key) == {"limit": None, "posted": 0, "reserved": 0, "remaining": None}
    answer = paced.generate(key)
    assert answer.status == 200
    # Of the thousand that may come at once, this one took the first place.
    assert answer.headers["x-ratelimit-remaining-requests"] == "999"


def test_concurrent_requests_of_a_team_over_all_its_keys(paced: RunningGateway) -> None:
    make_team(paced, "narrow", concurrent_requests=2)
    keys = [paced.make_key(team="narrow") for _ in range(3)]
    with ThreadPoolExecutor() as threads:
        under_way = [threads.submit(paced.generate, key, prompt="[sample delay_ms=700] x") for key in keys[:2]]
        wait_for(lambda: held(paced, "narrow") == 2, "two reservations")
        refused = paced.generate(keys[2])
        assert (refused.status, refused.json["error"]["code"]) == (429, "rate_limit_exceeded")
        assert "Rate limit reached for concurrency: its team may have 2" in refused.json["error"]["message"]
        assert refused.headers["Retry-After"] == "1"
        assert [each.result().status for each in under_way] == [200, 200]
    assert paced.generate(keys[2]).status == 200


def held(gateway: RunningGateway, team: str) -> int:
    usage = gateway.admin("GET", f"/admin/v1/teams/{team}/usage").json
    return int(usage["limits"]["concurrent_requests"]["in_progress"])


def test_a_team_may_use_fewer_models_than_its_key(paced: RunningGateway) -> None:
    make_team(paced, "choosy", models=["other/*"])
    key = paced.make_key(team="choosy")
    refused = paced.generate(key)
    assert (refused.status, refused.json["error"]["code"]) == (403, "model_not_allowed")
    assert refused.json["error"]["message"].startswith("The team of this API key")
    with sdk(paced, key) as client:
        assert list(client.models.list()) == []


def test_limits_change_while_traffic_flows(paced: RunningGateway) -> None:
    make_team(paced, "moving", quota_units_per_month=2 * PRICE)
    key = paced.make_key(team="moving")
    assert paced.generate(key, n=2).status == 200
    lowered = paced.admin("PATCH", "/admin/v1/teams/moving", body={"limits": {"quota_units_per_month": PRICE}})
    assert lowered.json["usage"]["quota_units_per_month"]["remaining"] == 0
    assert "its team has 0 left for the month" in paced.generate(key).json["error"]["message"]
    paced.admin("PATCH", "/admin/v1/teams/moving", body={"limits": {"quota_units_per_month": 3 * PRICE}})
    assert paced.generate(key).status == 200


# --- The SDK ---------------------------------------------------------------------------------------------------------


def rejections(gateway: RunningGateway, reason: str) -> int:
    line = next((one for one in gateway.metrics().splitlines() if f'rejections_total{{reason="{reason}"}}' in one), "0")
    return int(float(line.split()[-1]))


def ask_with(client: OpenAI) -> Any:
    return client.images.generate(model="acme/image-1", prompt="a cube")


def test_the_sdk_does_not_ask_again_where_the_quota_is_gone(paced: RunningGateway) -> None:
    before = rejections(paced, "insufficient_quota")
    with sdk(paced, paced.make_key(0), max_retries=5) as client, pytest.raises(openai.RateLimitError) as refused:
        ask_with(client)
    assert refused.value.code == "insufficient_quota"
    assert rejections(paced, "insufficient_quota") == before + 1


def test_the_sdk_waits_for_a_pace_and_succeeds(paced: RunningGateway) -> None:
    before = rejections(paced, "rate_limit_exceeded")
    # Slow enough that the second one comes too early on a busy machine too.
    with sdk(paced, paced.make_key(requests_per_minute=20), max_retries=2) as client:
        ask_with(client)
        began = time.monotonic()
        assert len(ask_with(client).data) == 1
        assert time.monotonic() - began > 0.9
    assert rejections(paced, "rate_limit_exceeded") == before + 1


# --- What it costs ---------------------------------------------------------------------------------------------------


def test_all_limits_on_both_levels_are_one_round_trip_to_admit_and_one_to_settle(
    paced: RunningGateway, store: str
) -> None:
    make_team(paced, "full", **EVERY_LIMIT)
    key = paced.make_key(team="full", **EVERY_LIMIT)
    assert paced.generate(key).status == 200
    seen: list[str] = []
    with redis.Redis.from_url(store) as client, client.monitor() as monitor:
        for _ in range(3):
            assert paced.generate(key).status == 200
        with redis.Redis.from_url(store) as other:
            other.echo("the end")
        for told in monitor.listen():
            if told["command"].startswith("ECHO"):
                break
            if told["client_type"] != "lua":
                seen.append(told["command"].split()[0])
    asked = [command for command in seen if command not in ("CLIENT", "HELLO", "SELECT")]
    assert asked == ["EVALSHA"] * 6
