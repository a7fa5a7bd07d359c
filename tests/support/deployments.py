"""A gateway whose model is made in several places."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from tests.support.gateways import RunningGateway, configuration, image_model, running_gateway

Place = Mapping[str, Any]
"""A ``url``, and settings of its provider and its deployment."""

SPARE = {"priority": 1}


def deployed(folder: Path, *places: Place, **changes: dict[str, Any]) -> AbstractContextManager[RunningGateway]:
    """A gateway whose model is made at ``places``, named place0 and so on; ``changes`` go into the sections."""
    return running_gateway(folder, toml_of(folder, *places, **changes))


def toml_of(folder: Path, *places: Place, **changes: dict[str, Any]) -> str:
    """Its configuration; what is in ``model`` is the model's."""
    given = image_model(**changes.pop("model", {}))
    model = {name: value for name, value in given.items() if name not in ("provider", "upstream_model")}
    toml = configuration(f"embedded:{folder}/data", "http://127.0.0.1:1", models=[model], **changes)
    deployments, providers = "", ""
    for index, place in enumerate(places):
        name, deployment = f"place{index}", place.get("deployment", {})
        settings = {"connect_timeout": 1, "api_key_env": "SAMPLE_PROVIDER_KEY", **place.get("provider", {})}
        lines = "".join(f"{key} = {json.dumps(value)}\n" for key, value in settings.items())
        providers += f'[[providers]]\nname = "{name}"\nbase_url = "{place["url"]}/v1"\n{lines}'
        lines = "".join(f"{key} = {json.dumps(value)}\n" for key, value in deployment.items())
        deployments += f'[[models.deployments]]\nprovider = "{name}"\nupstream_model = "image-1"\n{lines}'
    return f"{toml}\n{deployments}\n{providers}"
