"""Figures of the overview: of one process, of several on one port, and of what was before a gateway started again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.gateways import RunningGateway, SampleProvider, configuration, running_gateway
from tests.support.processes import wait_for

pytestmark = pytest.mark.slow


def overview(gateway: RunningGateway) -> Any:
    answer = gateway.admin("GET", "/admin/v1/overview")
    assert answer.status == 200, answer.body
    return answer.json


def images(gateway: RunningGateway) -> tuple[int, int]:
    """In the last hour, and in the last thirty days."""
    seen = overview(gateway)
    return sum(each["images"] for each in seen["minutes"]), sum(each["images"] for each in seen["days"])


def test_workers_add_up_and_a_new_process_goes_on(provider: SampleProvider, tmp_path: Path) -> None:
    toml = configuration(f"embedded:{tmp_path}/data", provider.url, server={"workers": 2})
    with running_gateway(tmp_path, toml) as gateway:
        key = gateway.make_key()
        for _ in range(6):
            assert gateway.generate(key, n=2).status == 200
        assert gateway.generate(key, n=99).status == 400
        wait_for(lambda: images(gateway) == (12, 12), "both workers' images")
        seen = overview(gateway)
        assert seen["gateway"]["status"] == "ready"
        assert seen["gateway"]["own_p50_ms"] > 0
        assert sum(each["outcomes"].get("delivered", 0) for each in seen["minutes"]) == 6
        assert sum(each["outcomes"].get("rejected", 0) for each in seen["minutes"]) == 1
        assert seen["days"][-1]["by_model"] == {"acme/image-1": {"images": 12, "quota_units": 60_000}}
        assert seen["providers"] == [{"name": "sample", "requests": 6, "failed": 0, "out_of_credit": 0}]
    with running_gateway(tmp_path, configuration(f"embedded:{tmp_path}/data", provider.url)) as again:
        # A request of the last moment is written as the process ends.
        assert images(again) == (12, 12)
        assert again.generate(key).status == 200
    with running_gateway(tmp_path, configuration(f"embedded:{tmp_path}/data", provider.url)) as last:
        assert images(last) == (13, 13)
