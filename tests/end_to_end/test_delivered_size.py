"""Images that come in another size than the one asked for."""

from __future__ import annotations

import base64
import csv
import io
import json
from pathlib import Path

import pytest

from tests.end_to_end.test_command_line import lightmeter
from tests.support.gateways import ADMIN_TOKEN, ask, configuration, image_model, running_gateway, sample_provider
from tests.support.scripted_provider import Reply, scripted_provider

HEAD = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR%b%b\x08\x02\0\0\0"


@pytest.mark.parametrize(("tier", "charged"), [("requested", 45_000), ("delivered", 1_000)])
def test_a_price_table_is_asked_for_the_size_that_is_charged(tmp_path: Path, tier: str, charged: int) -> None:
    prices = [{"size": "4K", "base": 45_000}, {"min_pixels": 60_000, "base": 7_000}, {"base": 1_000}]
    with (
        sample_provider(tmp_path, "--answer", "b64_json", "--longest-edge-px", "300") as provider,
        running_gateway(
            tmp_path,
            configuration(
                f"embedded:{tmp_path}/data",
                provider.url,
                models=[image_model(prices=prices)],
                accounting={"tier": tier},
            ),
        ) as gateway,
    ):
        key = gateway.make_key()
        assert gateway.generate(key, size="3840x1920").status == 200
        (entry,) = gateway.ledger(key)
        assert (entry["sizes"], entry["reserved"], entry["charged"]) == (["300x150"], 45_000, charged)
        assert gateway.generate(key, n=2, size="300x300").status == 200
        assert (gateway.ledger(key)[-1]["sizes"], gateway.ledger(key)[-1]["charged"]) == (["300x300"] * 2, 14_000)
        gateway.check_books(key)


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


@pytest.mark.parametrize("edge_px", [64, 4096])
@pytest.mark.parametrize("lead", ["", "data:image/png;base64,"])
def test_a_size_is_read_behind_the_beginning_of_an_address(tmp_path: Path, edge_px: int, lead: str) -> None:
    edge = edge_px.to_bytes(4, "big")
    image = lead + base64.b64encode(HEAD % (edge, edge) + bytes(200)).decode()
    part = {"type": "image_url", "image_url": {"url": image}}
    completed = json.dumps({"type": "image_generation.completed", "b64_json": image}).encode()
    drawn = {
        "JSON": json.dumps({"created": 1, "data": [{"b64_json": image}]}).encode(),
        "events": b"data: %b\n\n" % completed,
        "a chat": json.dumps({"choices": [{"message": {"content": "", "images": [part]}}]}).encode(),
    }
    charged = 12_500 if edge_px == 4096 else 5_000
    with (
        scripted_provider(lambda number: Reply(body=list(drawn.values())[number])) as provider,
        running_gateway(
            tmp_path, configuration(f"embedded:{tmp_path}/data", provider.url, accounting={"tier": "delivered"})
        ) as gateway,
    ):
        key = gateway.make_key()
        for name in drawn:
            if name == "a chat":
                chat = {
                    "model": "acme/image-1",
                    "messages": [{"role": "user", "content": "a"}],
                    "modalities": ["image"],
                }
                assert ask("POST", f"{gateway.url}/v1/chat/completions", key=key, body=chat).status == 200
            else:
                assert gateway.generate(key).status == 200
            entry = gateway.ledger(key)[-1]
            assert (entry["sizes"], entry["charged"]) == ([f"{edge_px}x{edge_px}"], charged), name
        gateway.check_books(key)
