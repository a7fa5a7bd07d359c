"""Images that come in another size than the one asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.gateways import configuration, running_gateway, sample_provider


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
        gateway.check_books(key)
        assert 'lightmeter_images_smaller_than_asked_total{model="acme/image-1"} 1.0' in gateway.metrics()
