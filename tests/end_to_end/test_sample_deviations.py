"""Each way in which the sample provider deviates, in each dialect, through a gateway: what is delivered is charged."""

from __future__ import annotations

import base64
import http.client
import urllib.request
from collections.abc import Iterator
from typing import Any, NamedTuple

import orjson
import pytest

from proxy.sample_provider.deviations import DEVIATIONS, SAID_INSTEAD
from tests.domain.answer_samples import events_of
from tests.support.gateways import (
    ALL_PARAMETERS,
    RunningGateway,
    SampleProvider,
    configuration,
    image_model,
    running_gateway,
)

ADDRESSES = {"openai": "/v1", "openrouter": "/v1", "gemini": "/v1beta"}
IMAGES, CHAT = "/v1/images/generations", "/v1/chat/completions"
IMAGE_PRICE = 5_000
DATA = "data:image/png;base64,"


class Received(NamedTuple):
    status: int
    body: bytes
    documents: list[dict[str, Any]]
    images: list[str]
    """Those that differ, as base64: chat passes on what a provider says twice."""


@pytest.fixture(scope="module")
def gateway(provider: SampleProvider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    folder = tmp_path_factory.mktemp("deviations")
    models = [
        image_model(f"acme/{dialect}", provider=dialect, text="free", parameters=[*ALL_PARAMETERS, "stream"])
        for dialect in ADDRESSES
    ]
    toml = configuration(f"embedded:{folder}/data", provider.url, models=models, provider={"name": "unused"})
    for dialect, path in ADDRESSES.items():
        toml += (
            f'\n[[providers]]\nname = "{dialect}"\ndialect = "{dialect}"\nbase_url = "{provider.url}{path}"\n'
            'api_key_env = "SAMPLE_PROVIDER_KEY"\n'
        )
    with running_gateway(folder, toml) as running:
        yield running


def send(gateway: RunningGateway, key: str, dialect: str, path: str, prompt: str, *, stream: bool) -> Received:
    asked: dict[str, Any] = {"model": f"acme/{dialect}", "stream": stream}
    if path == CHAT:
        asked |= {"messages": [{"role": "user", "content": prompt}], "modalities": ["image", "text"]}
    else:
        asked |= {"prompt": prompt, "response_format": "b64_json", "size": "64x64"}
    request = urllib.request.Request(gateway.url + path, orjson.dumps(asked))  # noqa: S310 - the test's own gateway
    request.add_header("Content-Type", "application/json")
    request.add_header("Authorization", f"Bearer {key}")
    try:
        with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310
            status = response.status
            try:
                body = response.read()
            except http.client.IncompleteRead as error:
                body = error.partial
    except urllib.error.HTTPError as error:
        with error:
            status, body = error.code, error.read()
    documents = list(events_of(body)) if status == 200 and stream else [orjson.loads(body)]
    images = dict.fromkeys(image for document in documents for image in images_in(document))
    return Received(status, body, documents, list(images))


def images_in(document: dict[str, Any]) -> Iterator[str]:
    """The images of an answer or an event, as base64."""
    for entry in document.get("data", [document]):
        if entry.get("b64_json"):
            yield entry["b64_json"]
    for choice in document.get("choices", ()):
        for image in (choice.get("message") or choice["delta"]).get("images", ()):
            yield (image if isinstance(image, str) else image["image_url"]["url"]).removeprefix(DATA)


@pytest.mark.parametrize("dialect", ADDRESSES)
@pytest.mark.parametrize("name", DEVIATIONS)
def test_what_is_delivered_is_charged(gateway: RunningGateway, name: str, dialect: str) -> None:
    for path in (IMAGES, CHAT):
        for stream in (False, True):
            key = gateway.make_key(1_000_000)
            prompt = f"[sample images=2 longest_edge_px=64 deviate={name}] a cube"
            received = send(gateway, key, dialect, path, prompt, stream=stream)
            (entry,) = gateway.ledger(key)
            case = f"{path}, {stream=}: {received.status} {received.body[-300:]!r}, {entry}"
            assert entry["charged"] == IMAGE_PRICE * len(received.images), case
            assert len(received.images) == expected_images(name), case
            assert all(base64.b64decode(image).startswith(b"\x89PNG") for image in received.images), case
            check_form(name, path, received, case)
            gateway.check_books(key)


def expected_images(name: str) -> int:
    return {"cut": 1, "error-in-200": 0, "no-image": 0}.get(name, 2)


def check_form(name: str, path: str, received: Received, case: str) -> None:
    """An error says why; images leave in OpenAI's form, whatever came."""
    if name == "error-in-200" or (name == "no-image" and path == IMAGES):
        # A stream that has begun tells of it in an event.
        assert received.status == 400 or len(received.documents) == 1, case
        error = received.documents[0]["error"]
        assert ("told to answer 400" in error["message"]) is (name == "error-in-200"), case
        assert (SAID_INSTEAD in error["message"] or "has to say" in error["message"]) is (name == "no-image"), case
        return
    assert received.status == 200, case
    for document in received.documents if path == IMAGES else ():
        created = document.get("created", document.get("created_at"))
        assert type(created) is int or "error" in document, case
