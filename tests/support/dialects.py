"""A gateway with one model in each dialect, all made at one scripted provider."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from tests.support.gateways import (
    ALL_PARAMETERS,
    Answer,
    RunningGateway,
    ask,
    configuration,
    image_model,
    running_gateway,
)
from tests.support.scripted_provider import Reply, ScriptedProvider, scripted_provider

DIALECTS = ("openai", "openrouter", "gemini")
IMAGES, CHAT = "/v1/images/generations", "/v1/chat/completions"
PNG = "iVBORw0KGgoAAAANSUhEUgAAAEAAAABACAIAAAAlC+aJAAAAC0lEQVR4nGNgQAUAABAAATm9j2UAAAAASUVORK5CYII="
DRAWN: Mapping[str, bytes] = {
    "openai": orjson.dumps({"created": 1, "data": [{"b64_json": PNG}]}),
    "openrouter": orjson.dumps(
        {"choices": [{"message": {"content": "", "images": [{"image_url": {"url": f"data:image/png;base64,{PNG}"}}]}}]}
    ),
    "gemini": orjson.dumps(
        {
            "candidates": [
                {
                    "content": {"parts": [{"inlineData": {"mimeType": "image/png", "data": PNG}}]},
                    "finishReason": "STOP",
                }
            ]
        }
    ),
}
"""An answer with one image, as each dialect has it."""


@dataclass(frozen=True)
class Stage:
    """What runs."""

    gateway: RunningGateway
    provider: ScriptedProvider

    def reply(self, reply: Reply) -> None:
        """Answer everything so from now on, and count anew."""
        self.provider.script = lambda _number: reply
        self.provider.received = 0

    def ask(self, dialect: str, path: str = IMAGES, *, key: str | None = None, **fields: Any) -> Answer:
        """One request for an image, by a key of its own."""
        body = body_of(path, dialect) | fields
        return ask("POST", self.gateway.url + path, key=key or self.gateway.make_key(1_000_000), body=body)


def body_of(path: str, model: str) -> dict[str, Any]:
    """A request for an image at one of the endpoints."""
    if path == IMAGES:
        return {"model": model, "prompt": "a blue cube"}
    return {"model": model, "messages": [{"role": "user", "content": "a blue cube"}], "modalities": ["image", "text"]}


@contextmanager
def stage(folder: Path, **provider_settings: Any) -> Iterator[Stage]:
    """The gateway and its provider, which is of all three dialects; each model has the name of its dialect."""
    with scripted_provider(lambda _number: Reply()) as provider:
        models = [
            image_model(dialect, provider=dialect, parameters=parameters)
            for dialect, parameters in zip(
                DIALECTS, ([*ALL_PARAMETERS, "stream", "partial_images"], ["stream"], ["stream"]), strict=True
            )
        ]
        settings = provider_settings
        toml = configuration(
            f"embedded:{folder}/data", provider.url, models=models, provider={"name": "openai", **settings}
        )
        for dialect in DIALECTS[1:]:
            lines = "".join(f"{name} = {orjson.dumps(value).decode()}\n" for name, value in settings.items())
            toml += (
                f'\n[[providers]]\nname = "{dialect}"\ndialect = "{dialect}"\nbase_url = "{provider.url}/v1"\n'
                f'api_key_env = "SAMPLE_PROVIDER_KEY"\n{lines}'
            )
        with running_gateway(folder, toml) as gateway:
            yield Stage(gateway, provider)
