"""Ten seeds of faults by chance under load. ``LIGHTMETER_FAULT_SEEDS=17,23`` plays those of your choice."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.faults.rounds import Round
from tests.faults.scene import scene
from tests.faults.schedule import GATEWAYS, make_schedule
from tests.support.gateways import SampleProvider

SEEDS = [int(seed) for seed in os.environ.get("LIGHTMETER_FAULT_SEEDS", "1,2,3,4,5,6,7,8,9,10").split(",")]


@pytest.mark.parametrize("seed", SEEDS)
def test_the_books_are_right_after(seed: int, provider: SampleProvider, tmp_path: Path) -> None:
    schedule = make_schedule(seed)
    print(schedule.describe())  # noqa: T201 - pytest shows it when the test fails
    with scene(tmp_path, provider, accounting={"lease_seconds": 1}) as stage:
        gateways = [stage.start_gateway(f"gateway-{number}") for number in range(GATEWAYS)]
        played = Round(stage, gateways, schedule)
        print(played.check(played.play()))  # noqa: T201


def test_the_same_seed_is_the_same_schedule() -> None:
    assert make_schedule(3) == make_schedule(3)
    assert make_schedule(3) != make_schedule(4)
