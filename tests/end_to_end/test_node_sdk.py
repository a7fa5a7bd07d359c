"""OpenAI's package for Node against a gateway: one script asks in every way, and tells what it was given."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from proxy.domain.requests.chat import CHAT
from proxy.domain.requests.edit import EDIT_FORM, VARIATION_FORM
from proxy.domain.requests.image import GENERATION
from proxy.domain.requests.kinds import Fields
from tests.support.gateways import RunningGateway, SampleProvider, ask
from tests.support.node import SOURCE, install, told_by

SLOW_REQUESTS_PER_MINUTE = 60
# By URL, by base64, raw twice, at once, streamed, edits of one and of many, a streamed one, a variation, two chats.
DELIVERED_IMAGES = [2, 1, 1, 1, *[1] * 10, 2, 2, 1, 1, 2, 1, 1]


@dataclass(frozen=True)
class Told:
    """What the script told, and the key that it asked with."""

    answers: dict[str, Any]
    key: str

    def __getitem__(self, name: str) -> Any:
        return self.answers[name]


@pytest.fixture(scope="session")
def node_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The script in a folder of its own, with the packages of its lock file."""
    folder: Path = tmp_path_factory.mktemp("node")
    install(folder)
    return folder


@pytest.fixture(scope="module")
def told(sdk_gateway: RunningGateway, node_folder: Path) -> Told:
    """The script, run once."""
    key = sdk_gateway.make_key()
    answers = told_by(
        node_folder,
        "script.mjs",
        LIGHTMETER_URL=sdk_gateway.url,
        LIGHTMETER_KEY=key,
        LIGHTMETER_POOR_KEY=sdk_gateway.make_key(4_999),
        LIGHTMETER_SLOW_KEY=sdk_gateway.make_key(requests_per_minute=SLOW_REQUESTS_PER_MINUTE),
    )
    return Told(answers, key)


def test_images_come_as_urls_and_as_base64(told: Told) -> None:
    assert len(told["url"]["data"]) == 2
    for image in told["url"]["data"]:
        assert ask("GET", image["url"]).body.startswith(b"\x89PNG")
    [image] = told["base64"]["data"]
    assert image["b64_json"].startswith("iVBORw0KGgo")
    assert "usage" not in told["url"]
    assert told["atOnce"] == 10


@pytest.mark.parametrize(
    ("declarations", "interface", "fields"),
    [
        ("images.d.ts", "ImageGenerateParamsBase", GENERATION),
        ("images.d.ts", "ImageEditParamsBase", EDIT_FORM),
        ("images.d.ts", "ImageCreateVariationParams", VARIATION_FORM),
        ("chat/completions/completions.d.ts", "ChatCompletionCreateParamsBase", CHAT),
    ],
)
def test_every_field_of_the_package_is_known(
    node_folder: Path, declarations: str, interface: str, fields: Fields
) -> None:
    text = (node_folder / "node_modules" / "openai" / "resources" / declarations).read_text()
    declared = re.search(rf"^export interface {interface} \{{$(.*?)^\}}$", text, re.DOTALL | re.MULTILINE)
    assert declared is not None
    sent = set(re.findall(r"^    (\w+)\??:", declared[1], re.MULTILINE))
    assert len(sent) > 5
    assert sent - set(fields.kinds) == set()


def test_raw_answers(told: Told) -> None:
    assert (told["withResponse"]["images"], told["withResponse"]["status"]) == (1, 200)
    assert told["withResponse"]["request"].startswith("req_")
    assert told["asResponse"]["type"] == "application/json"
    assert len(told["asResponse"]["body"]["data"]) == 1


def test_streams(told: Told) -> None:
    types = ["image_generation.partial_image", "image_generation.completed"] * 2
    assert [event["type"] for event in told["events"]] == types
    assert all(event["b64_json"].startswith("iVBORw0KGgo") for event in told["events"])
    assert "told to fail" in told["streamError"]["message"]


def test_edits_and_variations(told: Told, provider: SampleProvider) -> None:
    assert [len(told[name]["data"]) for name in ("edit", "editOfMany", "variation")] == [2, 1, 2]
    assert [event["type"] for event in told["editEvents"]] == ["image_edit.partial_image", "image_edit.completed"]
    [many] = [
        {part["name"]: part for part in request["parts"]}
        for request in provider.requests()
        if any(part["filename"] == "dog.png" for part in request.get("parts", ()))
    ]
    assert json.loads(many["image_config"]["value"]) == {"image_size": "4K"}
    assert many["mask"]["filename"] == "mask.png"


def test_chat_with_images(told: Told) -> None:
    [image] = told["chat"]["choices"][0]["message"]["images"]
    assert image["image_url"]["url"].startswith("data:image/png;base64,iVBORw0KGgo")
    assert "cost" not in told["chat"]["usage"]
    deltas = [choice["delta"] for chunk in told["chunks"] for choice in chunk["choices"]]
    assert sum(len(delta.get("images", [])) for delta in deltas) == 1
    assert told["chunks"][-1]["object"] == "chat.completion.chunk"


def test_models(told: Told) -> None:
    assert [model["id"] for model in told["models"]] == ["acme/image-1"]
    assert told["model"]["owned_by"] == "acme"


@pytest.mark.parametrize(
    ("name", "kind", "status", "code", "param"),
    [
        ("noModel", "NotFoundError", 404, "model_not_found", "model"),
        ("noImages", "BadRequestError", 400, "invalid_request", "n"),
        ("noSuchField", "BadRequestError", 400, "unknown_parameter", "seed_phrase"),
        ("noEdits", "BadRequestError", 400, "invalid_request", "n"),
        ("noPicture", "BadRequestError", 400, "invalid_request", "image"),
        ("noKey", "AuthenticationError", 401, "invalid_api_key", None),
        ("noQuota", "RateLimitError", 429, "insufficient_quota", None),
    ],
)
def test_errors_are_read_and_not_retried(
    told: Told, name: str, kind: str, status: int, code: str, param: str | None
) -> None:
    error = told[name]
    assert (error["kind"], error["status"], error["code"], error["param"]) == (kind, status, code, param)
    assert error["request"].startswith("req_")
    assert error["sent"] == 1


def test_what_may_pass_is_retried(told: Told) -> None:
    assert (told["failing"]["kind"], told["failing"]["status"]) == ("InternalServerError", 502)
    assert told["failing"]["sent"] == 2
    assert (told["paced"]["kind"], told["paced"]["sent"]) == (None, 2)


def test_the_books_hold_all_of_it(told: Told, sdk_gateway: RunningGateway) -> None:
    sdk_gateway.check_books(told.key)
    entries = sdk_gateway.ledger(told.key)
    assert [entry["images"] for entry in entries if entry["outcome"] == "delivered"] == DELIVERED_IMAGES


def test_the_lock_file_names_no_host() -> None:
    assert "resolved" not in (SOURCE / "package-lock.json").read_text()
    # A project's own page, as a package names it, is no registry.
    hosts = set(re.findall(r"://([^/\"]+)", (SOURCE / "package-lock.json").read_text()))
    assert hosts <= {"github.com"}
