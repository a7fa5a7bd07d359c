"""A gateway whose models are each made at a provider of its own, and may stand in for one another."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from tests.support.gateways import RunningGateway, configuration, image_model


def model_at(name: str, multiplier: str = "1", **more: Any) -> dict[str, Any]:
    """A model whose provider has its name."""
    return image_model(name, multiplier, **{"provider": name, **more})


def toml_of(
    store_url: str, urls: Mapping[str, str], *models: dict[str, Any], provider: Any = None, **changes: Any
) -> str:
    """The configuration of ``models``, made at ``urls``; ``provider`` are settings of all providers."""
    settings = {"connect_timeout": 1, "api_key_env": "SAMPLE_PROVIDER_KEY", **(provider or {})}
    others = [{"name": name, "base_url": f"{url}/v1", **settings} for name, url in urls.items()]
    return configuration(store_url, "http://127.0.0.1:1", models=list(models), others=others, **changes)


def units_by_state(gateway: RunningGateway, model: str) -> dict[str, int]:
    """``lightmeter_quota_units_total`` of a model, and what is held; nothing that is 0."""
    metrics = gateway.metrics()
    found = re.findall(rf'^lightmeter_quota_units_total{{model="{model}",state="(\w+)"}} (\S+)$', metrics, re.MULTILINE)
    held = re.findall(rf'^lightmeter_quota_units_held{{model="{model}"}} (\S+)$', metrics, re.MULTILINE)
    figures = {state: int(float(value)) for state, value in (*found, *(("held", value) for value in held))}
    return {state: value for state, value in figures.items() if value}


def check_units(gateway: RunningGateway, *models: str) -> None:
    """Reserved = charged - overage + released + still held, of each model."""
    for model in models:
        units = units_by_state(gateway, model)
        reserved, charged, overage, released, held = (
            units.get(state, 0) for state in ("reserved", "charged", "overage", "released", "held")
        )
        assert reserved == charged - overage + released + held, (model, units)
