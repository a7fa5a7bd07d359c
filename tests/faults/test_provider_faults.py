"""A provider that fails in every way there is: never a second generation, and no charge for what did not come."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.faults.scene import GENERATION, PRICE, Scene, outcomes, scene
from tests.support.gateways import RunningGateway, SampleProvider

IMPATIENT: dict[str, Any] = {"first_byte_timeout": 1.0, "idle_timeout": 0.5, "max_response": 2_000_000}


@pytest.fixture(scope="module")
def theatre(
    provider: SampleProvider, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Scene, RunningGateway]]:
    """One scene for all: the provider's faults leave nothing behind."""
    with scene(tmp_path_factory.mktemp("provider-faults"), provider, provider=IMPATIENT) as made:
        yield made, made.start_gateway()


@pytest.fixture
def play(theatre: tuple[Scene, RunningGateway]) -> tuple[Scene, RunningGateway, str]:
    """The scene, its gateway, and a key that has spent nothing."""
    made, gateway = theatre
    made.to_provider.come_back()
    made.to_provider.forget_rules()
    made.provider.clear()
    return made, gateway, gateway.make_key(100 * PRICE)


Play = tuple[Scene, RunningGateway, str]


def test_it_refuses_the_connection(play: Play) -> None:
    made, gateway, key = play
    made.to_provider.go_away()
    answer = gateway.generate(key)
    assert (answer.status, answer.json["error"]["code"]) == (502, "upstream_error")
    assert [each[1:] for each in outcomes(gateway, key)] in ([("unreachable", 0, 0)], [("failed", 0, 0)])
    assert made.provider.requests() == []
    made.check(gateway, key)


@pytest.mark.parametrize(
    ("prompt", "status", "outcome"),
    [
        ("[sample truncate_after=0] x", 502, "failed"),
        ("[sample stall_after=60] x", 504, "failed"),
        ("[sample stall_after=600000 image_bytes=400000] x", None, "truncated"),
        ("[sample malformed] x", 502, "failed"),
        ("[sample endless] x", None, "failed"),
        ("[sample delay_ms=3000] x", 504, "failed"),
        ("[sample drop_connection] x", 502, "failed"),
    ],
)
def test_it_breaks_off(play: Play, prompt: str, status: int | None, outcome: str) -> None:
    made, gateway, key = play
    request = made.send(gateway, key, prompt, n=4, response_format="b64_json")
    if status is None:
        # The answer had begun: it is cut, and never ended as if it were whole.
        assert request.exception(timeout=20) is not None
    else:
        assert request.result(timeout=20).status == status
    made.check(gateway, key)
    ((_kind, ended, images, charged),) = outcomes(gateway, key)
    assert (ended, charged) == (outcome, images * PRICE)
    assert (images > 0) == (outcome == "truncated")
    assert len(made.provider.requests()) == 1


def test_it_resets_after_the_headers(play: Play) -> None:
    made, gateway, key = play
    made.to_provider.lose_reply(GENERATION)
    answer = gateway.generate(key)
    assert (answer.status, answer.json["error"]["code"]) == (502, "upstream_error")
    # The provider was asked, and may have been at work: it is not asked again.
    assert len(made.provider.requests()) == 1
    assert outcomes(gateway, key) == [("request", "failed", 0, 0)]
    made.check(gateway, key)


@pytest.mark.parametrize("images", [0, 2, 9])
def test_it_makes_another_number_of_images(play: Play, images: int) -> None:
    made, gateway, key = play
    answer = gateway.generate(key, prompt=f"[sample images={images}] x", n=4)
    assert (answer.status, len(answer.json["data"])) == (200, images)
    outcome = "delivered" if images else "empty"
    assert outcomes(gateway, key) == [("request", outcome, images, images * PRICE)]
    (entry,) = gateway.ledger(key)
    assert entry["overage"] == max(0, images - 4) * PRICE
    made.check(gateway, key)


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_pooled_connection_that_is_closed_as_it_is_used_again(play: Play, moment: str) -> None:
    made, gateway, key = play
    assert gateway.generate(key).status == 200
    made.provider.clear()
    getattr(made.to_provider, moment)(GENERATION, made.to_provider.reset)
    answer = gateway.generate(key)
    # Whether the provider has seen it is not known here; a second try could be a second generation.
    assert answer.status in (200, 502)
    assert len(made.provider.requests()) <= 1
    made.check(gateway, key)
    delivered = ("request", "delivered", 1, PRICE)
    assert outcomes(gateway, key) == [delivered, delivered if answer.status == 200 else ("request", "failed", 0, 0)]
