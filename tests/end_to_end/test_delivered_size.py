"""Images that come in another size than the one asked for."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from tests.end_to_end.test_command_line import lightmeter
from tests.support.gateways import ADMIN_TOKEN, configuration, running_gateway, sample_provider


@pytest.mark.parametrize(("tier", "charged"), [("requested", 12_500), ("delivered", 5_000)])
def test_they_are_counted_kept_and_charged_by_setting(tmp_path: Path, tier: str, charged: int) -> None:
    toml = "embedded:{}/data"
    with (
        sample_provider(tmp_path, "--answer", "b64_json", "--longest-edge-px", "300") as provider,
        running_gateway(
            tmp_path, configuration(toml.format(tmp_path), provider.url, accounting={"tier": tier})
        ) as gateway,
    ):
        key = gateway.make_key()
        assert gateway.generate(key, size="3840x1920").status == 200
        assert gateway.generate(key, size="300x150").status == 200
        first, second = gateway.ledger(key)
        assert (first["sizes"], first["charged"], first["overage"]) == (["300x150"], charged, 0)
        assert (second["sizes"], second["charged"]) == (["300x150"], 5_000)
        by_tier = {"standard": {"images": 1, "unit_price": 5_000}} if tier == "delivered" else None
        assert (first.get("charged_by"), second.get("charged_by")) == (by_tier, by_tier)
        counts = {"standard": 2} if tier == "delivered" else {"standard": 1, "4k": 1}
        told = [line for line in gateway.metrics().splitlines() if line.startswith("lightmeter_images_total{")]
        assert sorted(told) == sorted(
            f'lightmeter_images_total{{model="acme/image-1",tier="{each}"}} {count}.0' for each, count in counts.items()
        )
        admin = {"LIGHTMETER_ADMIN_URL": gateway.admin_url, "LIGHTMETER_ADMIN_TOKEN": ADMIN_TOKEN}
        rows = list(csv.DictReader(io.StringIO(lightmeter("ledger", "export", environment=admin))))
        assert [row["charged_by"] and json.loads(row["charged_by"]) for row in rows] == [by_tier or ""] * 2
        gateway.check_books(key)
        assert 'lightmeter_images_smaller_than_asked_total{model="acme/image-1"} 1.0' in gateway.metrics()
