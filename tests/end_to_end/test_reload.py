"""SIGHUP: other models and providers from the next request on, and a bad file that changes nothing."""

from __future__ import annotations

import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

from tests.support.gateways import (
    RunningGateway,
    SampleProvider,
    ask,
    configuration,
    image_model,
    running_gateway,
    sample_provider,
)
from tests.support.processes import wait_for

TAKEN = '"message":"the configuration was read again'


def reload(gateway: RunningGateway, folder: Path, toml: str, *, seen: str = TAKEN) -> None:
    """Have the gateway read ``toml``, and wait until it has said so once more."""
    before = gateway.server.output.count(seen)
    (folder / "lightmeter.toml").write_text(toml)
    gateway.server.process.send_signal(signal.SIGHUP)
    wait_for(lambda: gateway.server.output.count(seen) > before, "the configuration to be read")


def configured(folder: Path, url: str, *models: dict[str, Any], **changes: dict[str, Any]) -> str:
    return configuration(f"embedded:{folder}/data", url, models=list(models), **changes)


def model_ids(gateway: RunningGateway, key: str) -> list[str]:
    return [model["id"] for model in ask("GET", f"{gateway.url}/v1/models", key=key).json["data"]]


def test_models_and_prices_change_from_the_next_request_on(provider: SampleProvider, tmp_path: Path) -> None:
    with running_gateway(tmp_path, configured(tmp_path, provider.url, image_model())) as gateway:
        key = gateway.make_key()
        assert gateway.generate(key).status == 200
        dearer, other = image_model(multiplier="2"), image_model("acme/image-2")
        reload(gateway, tmp_path, configured(tmp_path, provider.url, dearer, other))
        assert model_ids(gateway, key) == ["acme/image-1", "acme/image-2"]
        assert gateway.generate(key).status == 200
        reload(gateway, tmp_path, configured(tmp_path, provider.url, other))
        answer = gateway.generate(key)
        assert (answer.status, answer.json["error"]["code"]) == (404, "model_not_found")
        assert [entry["charged"] for entry in gateway.ledger(key)] == [5_000, 10_000]
        gateway.check_books(key)
        assert 'lightmeter_config_reloads_total{result="ok"} 2.0' in gateway.metrics()


def test_a_bad_file_leaves_the_old_one_in_force(provider: SampleProvider, tmp_path: Path) -> None:
    good = configured(tmp_path, provider.url, image_model())
    with running_gateway(tmp_path, good) as gateway:
        key = gateway.make_key()
        kept = "the one before stays in force"
        for bad in ("no TOML at all [", good.replace('provider = "sample"', 'provider = "nobody"'), ""):
            reload(gateway, tmp_path, bad, seen=kept)
            assert gateway.generate(key).status == 200
        gateway.server.wait_to_say("models[0].provider: no provider is named 'nobody'")
        (tmp_path / "lightmeter.toml").unlink()
        gateway.server.process.send_signal(signal.SIGHUP)
        gateway.server.wait_for_output("cannot be read: No such file")
        assert 'lightmeter_config_reloads_total{result="refused"} 4.0' in gateway.metrics()
        gateway.check_books(key)


def test_what_takes_a_restart_is_told(provider: SampleProvider, tmp_path: Path) -> None:
    with running_gateway(tmp_path, configured(tmp_path, provider.url, image_model())) as gateway:
        key = gateway.make_key()
        changes: dict[str, dict[str, Any]] = {
            "server": {"default_model": "acme/image-1"},
            "accounting": {"lease_seconds": 30},
        }
        reload(gateway, tmp_path, configured(tmp_path, provider.url, image_model(), **changes))
        gateway.server.wait_to_say("[accounting] has changed, which takes a restart")
        assert "[server] has changed" not in gateway.server.output
        assert ask("POST", f"{gateway.url}/v1/images/generations", key=key, body={"prompt": "x"}).status == 200


def test_what_is_in_flight_ends_where_it_began(provider: SampleProvider, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    with (
        sample_provider(tmp_path / "other") as other,
        running_gateway(tmp_path, configured(tmp_path, provider.url, image_model())) as gateway,
        ThreadPoolExecutor(1) as threads,
    ):
        key = gateway.make_key()
        slow = threads.submit(gateway.generate, key, prompt="[sample delay_ms=1500] x")
        wait_for(lambda: gateway.quota(key)["reserved"] == 5_000, "the request to be under way")
        reload(gateway, tmp_path, configured(tmp_path, other.url, image_model(multiplier="2")))
        assert gateway.generate(key).status == 200
        assert slow.result().status == 200
        assert other.images_made() == 1
        # In the order in which they ended.
        assert [entry["charged"] for entry in gateway.ledger(key)] == [10_000, 5_000]
        gateway.check_books(key)


def test_no_request_notices_that_the_file_is_read_again_and_again(provider: SampleProvider, tmp_path: Path) -> None:
    one = configured(tmp_path, provider.url, image_model())
    two = configured(tmp_path, provider.url, image_model(multiplier="2"), provider={"max_connections": 5})
    done = Event()

    def ask_until_done(generate: Callable[[], int]) -> list[int]:
        statuses = []
        while not done.is_set():
            statuses.append(generate())
        return statuses

    with running_gateway(tmp_path, one) as gateway, ThreadPoolExecutor(4) as threads:
        key = gateway.make_key()
        asking = [threads.submit(ask_until_done, lambda: gateway.generate(key).status) for _ in range(4)]
        try:
            for _ in range(10):
                reload(gateway, tmp_path, two)
                reload(gateway, tmp_path, one)
        finally:
            done.set()
        assert {status for each in asking for status in each.result()} == {200}
        gateway.check_books(key)
        assert {entry["charged"] for entry in gateway.ledger(key)} == {5_000, 10_000}
