"""Providers that are OpenAI's API but for their door: by what they let us in, where they are, and how they say it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
import orjson
import pytest

from tests.support.gateways import Answer, RunningGateway, ask, running_gateway
from tests.support.polling import until
from tests.support.recording_provider import Answered, RecordingProvider, recording_provider

SECRETS = {
    "BEARER_KEY": "bearer-secret-41f7c0",
    "HEADER_KEY": "header-secret-c9a1d3",
    "QUERY_KEY": "query+secret/88=e2&f0",
    "PLAIN_KEY": "plain-secret-5d20b6",
}
FILE_SECRET, NEXT_FILE_SECRET = "file-secret-77ab01", "file-secret-90cd12"
GENERATIONS, EDITS, VARIATIONS, CHAT = (
    "/v1/images/generations", "/v1/images/edits", "/v1/images/variations", "/v1/chat/completions",
)  # fmt: skip
PIXEL = b"\x89PNG\r\n\x1a\n" + b"\0" * 64


def configuration(folder: Path, url: str) -> str:
    return (
        f"""
[server]
listen = "127.0.0.1:0"
[admin]
listen = "127.0.0.1:0"
[store]
url = "embedded:{folder}/data"
[logs]
level = "debug"

[[providers]]
name = "plain"
base_url = "{url}/plain"
api_key_env = "PLAIN_KEY"

[[providers]]
name = "bearer"
base_url = "{url}/bearer"
auth = {{ type = "bearer", key_env = "BEARER_KEY" }}

[[providers]]
name = "google"
dialect = "gemini"
base_url = "{url}/google"
auth = {{ type = "bearer", key_env = "BEARER_KEY" }}
query = {{ alt-version = "2" }}

[[providers]]
name = "azure"
base_url = "{url}/openai/deployments/{{upstream_model}}"
auth = {{ type = "header", name = "api-key", key_env = "HEADER_KEY" }}
query = {{ api-version = "2025-04-01-preview" }}
send_model = false

[[providers]]
name = "scheme"
base_url = "{url}/scheme"
auth = {{ type = "header", name = "Authorization", scheme = "Key", key_env = "HEADER_KEY" }}
paths = {{ generations = "/draw/{{upstream_model}}", edits = "/redraw", variations = "/vary", chat = "/talk" }}

[[providers]]
name = "query"
base_url = "{url}/query"
auth = {{ type = "query", name = "key", key_env = "QUERY_KEY" }}
query = {{ version = "a b" }}

[[providers]]
name = "file"
base_url = "{url}/file"
auth = {{ type = "file", path = "{folder}/key" }}

[[providers]]
name = "queryfile"
base_url = "{url}/queryfile"
auth = {{ type = "query", name = "key", key_file = "{folder}/key" }}

[[providers]]
name = "lost"
base_url = "{url}/lost"
auth = {{ type = "file", path = "{folder}/lost" }}

[[providers]]
name = "none"
base_url = "{url}/none"
auth = {{ type = "none" }}
"""
        + "".join(
            f"""
[[models]]
id = "{name}"
provider = "{name}"
upstream_model = "acme/image 1"
token_multiplier = 1
parameters = ["n", "size", "quality", "stream", "complexity"]
"""
            for name in ("plain", "bearer", "google", "azure", "scheme", "query", "file", "queryfile", "none", "lost")
        )
        + """
[[models]]
id = "worded"
provider = "azure"
upstream_model = "acme/image-1"
token_multiplier = 1
parameters = ["n", "quality", "complexity"]
rename = { image_config.image_size = "resolution", image_config.aspect_ratio = "aspect_ratio", n = "num_images" }
words = { resolution = { 1K = "1k", 2K = "2k" }, quality = { high = "hd" } }
constants = { watermark = false, safety = { level = 2 } }
[models.extra_parameters]
seed = "integer"
strength = "number"
tiled = "boolean"
complexity = ["low", "medium", "high"]
mode = ["fast", 2]
tags = "array"
hints = "object"
note = "string"

[[models]]
id = "priced"
provider = "azure"
upstream_model = "acme/image-1"
token_multiplier = 1
parameters = ["quality"]
words = { quality = { low = "standard" } }
[[models.prices]]
quality = "low"
base = 100
[[models.prices]]
quality = " Extra-HD "
base = 9_000

[[models]]
id = "open"
provider = "azure"
upstream_model = "acme/image-1"
token_multiplier = 1
unknown_parameters = "forward"
rename = { image_config.image_size = "resolution" }
constants = { watermark = false }

[[models]]
id = "talker"
provider = "azure"
upstream_model = "acme/talk-1"
token_multiplier = 1
rename = { max_tokens = "limits.tokens" }
constants = { limits = { images = 1 }, api_mode = "images" }
[models.extra_parameters]
seed = "integer"
voice = ["low"]

[[models]]
id = "googled"
provider = "google"
upstream_model = "gemini-image"
token_multiplier = 1
rename = { strength = "generationConfig.imageConfig.strength" }
constants = { safetySettings = [ { category = "ALL", threshold = "OFF" } ], generationConfig = { candidateCount = 1 } }
[models.extra_parameters]
strength = "number"

[[models]]
id = "several"
token_multiplier = 1
constants = { watermark = false }
[[models.deployments]]
provider = "lost"
upstream_model = "lost-1"
[[models.deployments]]
provider = "azure"
upstream_model = "azure-1"
priority = 1
"""
    )


@dataclass(frozen=True)
class Stage:
    gateway: RunningGateway
    provider: RecordingProvider
    folder: Path

    def generate(self, model: str, **fields: Any) -> Answer:
        return self.ask(GENERATIONS, {"model": model, "prompt": "a cube", **fields})

    def ask(self, path: str, body: Any, headers: dict[str, str] | None = None) -> Answer:
        return ask("POST", self.gateway.url + path, key=self.gateway.make_key(10**9), body=body, headers=headers)

    def chat(self, model: str, **fields: Any) -> Answer:
        messages = [{"role": "user", "content": "a cube"}]
        return self.ask(CHAT, {"model": model, "messages": messages, "modalities": ["image", "text"], **fields})

    def form(self, path: str, **fields: str) -> Answer:
        parts = [(f'name="{name}"', text.encode()) for name, text in fields.items()]
        parts.append(('name="image"; filename="a.png"', PIXEL))
        body = b"".join(
            b"--cut\r\nContent-Disposition: form-data; %b\r\n\r\n%b\r\n" % (name.encode(), text) for name, text in parts
        )
        return self.ask(path, body + b"--cut--\r\n", {"Content-Type": "multipart/form-data; boundary=cut"})


@pytest.fixture(scope="module")
def play(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("doors")
    (folder / "key").write_text(f"{FILE_SECRET}\n")
    (folder / "lost").write_text("was-there-at-the-start\n")
    with (
        recording_provider() as provider,
        running_gateway(folder, configuration(folder, provider.url), SECRETS) as gateway,
    ):
        (folder / "lost").unlink()
        yield Stage(gateway, provider, folder)


# --- Being let in -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "target", "header", "secret"),
    [
        ("plain", "/plain/images/generations", "Authorization", "Bearer plain-secret-5d20b6"),
        ("bearer", "/bearer/images/generations", "Authorization", "Bearer bearer-secret-41f7c0"),
        (
            "google",
            "/google/acme/image%201:generateContent?alt-version=2",
            "Authorization",
            "Bearer bearer-secret-41f7c0",
        ),
        (
            "azure",
            "/openai/deployments/acme/image%201/images/generations?api-version=2025-04-01-preview",
            "api-key",
            "header-secret-c9a1d3",
        ),
        ("scheme", "/scheme/draw/acme/image%201", "Authorization", "Key header-secret-c9a1d3"),
        ("query", "/query/images/generations?version=a+b&key=query%2Bsecret/88%3De2%26f0", "Authorization", None),
        ("file", "/file/images/generations", "Authorization", f"Bearer {FILE_SECRET}"),
        ("queryfile", f"/queryfile/images/generations?key={FILE_SECRET}", "Authorization", None),
        ("none", "/none/images/generations", "Authorization", None),
    ],
)
def test_each_provider_is_asked_where_it_is_with_what_it_wants(
    play: Stage, model: str, target: str, header: str, secret: str | None
) -> None:
    answer = play.generate(model)
    assert play.provider.last.target == target
    assert play.provider.last.headers[header] == secret
    assert len([name for name in play.provider.last.headers if name.lower() in ("authorization", "api-key")]) <= 1
    assert answer.status == 200, answer.body


@pytest.mark.parametrize("model", ["plain", "azure", "query", "file", "queryfile"])
def test_nothing_of_a_client_takes_the_place_of_what_lets_the_gateway_in(play: Stage, model: str) -> None:
    before = play.generate(model)
    expected = play.provider.last
    headers = {"api-key": "lm_mine", "x-goog-api-key": "mine", "Cookie": "key=mine", "Proxy-Authorization": "mine"}
    key = play.gateway.make_key(10**9)
    address = f"{play.gateway.url}{GENERATIONS}?key=mine&api-version=2000-01-01&version=mine"
    body = {"model": model, "prompt": "a cube"}
    headers.pop("api-key")
    answer = ask("POST", address, key=key, body=body, headers=headers)
    assert (answer.status, before.status) == (200, 200)
    assert play.provider.last.target == expected.target
    assert sorted(play.provider.last.headers.items()) == sorted(expected.headers.items())
    assert b"mine" not in play.provider.last.body


@pytest.mark.parametrize(
    ("path", "target"),
    [(EDITS, "/scheme/redraw"), (VARIATIONS, "/scheme/vary"), (CHAT, "/scheme/talk")],
)
def test_every_endpoint_may_be_elsewhere(play: Stage, path: str, target: str) -> None:
    play.provider.answer = lambda _asked: Answered()
    if path == CHAT:
        play.chat("scheme")
    else:
        play.form(path, model="scheme", **({"prompt": "x"} if path == EDITS else {}))
    assert play.provider.last.target == target
    assert play.provider.last.headers["Authorization"] == "Key header-secret-c9a1d3"


def test_a_form_is_let_in_by_a_file_too(play: Stage) -> None:
    assert play.form(EDITS, model="file", prompt="x").status == 200
    assert play.provider.last.headers["Authorization"] == f"Bearer {FILE_SECRET}"
    assert play.provider.last.headers["Content-Type"].startswith("multipart/form-data")
    assert play.form(EDITS, model="queryfile", prompt="x").status == 200
    assert play.provider.last.query == [("key", FILE_SECRET)]


def test_what_a_provider_says_of_its_key_reaches_nobody(play: Stage) -> None:
    for model, secret in (
        ("bearer", SECRETS["BEARER_KEY"]),
        ("azure", SECRETS["HEADER_KEY"]),
        ("query", SECRETS["QUERY_KEY"]),
        ("queryfile", FILE_SECRET),
    ):
        told = orjson.dumps({"error": {"message": f"Bad size near {secret}.", "code": "invalid_size"}})
        play.provider.answer = lambda _asked, told=told: Answered(400, told)  # type: ignore[misc]
        try:
            answer = play.generate(model)
        finally:
            play.provider.answer = lambda _asked: Answered()
        assert answer.status == 400
        assert secret.encode() not in answer.body
        assert b"[removed]" in answer.body


def test_a_key_in_a_file_is_read_again_and_lost_only_where_nothing_better_is_there(play: Stage) -> None:
    path = play.folder / "key"
    new = path.with_name("new")
    new.write_text(NEXT_FILE_SECRET)
    new.rename(path)

    def sent() -> str:
        assert play.generate("file").status == 200
        return str(play.provider.last.headers["Authorization"])

    until(lambda: sent() == f"Bearer {NEXT_FILE_SECRET}")
    path.unlink()
    for _ in range(3):
        assert sent() == f"Bearer {NEXT_FILE_SECRET}"
    path.write_text("\n")
    assert sent() == f"Bearer {NEXT_FILE_SECRET}"
    path.write_text(f"{FILE_SECRET}\n")
    until(lambda: sent() == f"Bearer {FILE_SECRET}")


def test_without_its_key_a_provider_is_not_asked_and_nothing_is_charged(play: Stage) -> None:
    asked = len(play.provider.asked)
    key = play.gateway.make_key(10**9)
    body = {"model": "lost", "prompt": "a cube"}
    answer = ask("POST", play.gateway.url + GENERATIONS, key=key, body=body)
    assert (answer.status, answer.json["error"]["code"]) == (502, "upstream_error")
    assert "operator" in answer.json["error"]["message"]
    assert len(play.provider.asked) == asked
    (entry,) = play.gateway.ledger(key)
    assert (entry["outcome"], entry["charged"]) == ("unreachable", 0)
    play.gateway.check_books(key)


def test_without_its_key_another_deployment_is_asked(play: Stage) -> None:
    answer = play.generate("several")
    assert answer.status == 200
    assert answer.headers["x-lightmeter-attempts"] == "2"
    assert play.provider.last.path == "/openai/deployments/azure-1/images/generations"
    assert play.provider.last.json == {"prompt": "a cube", "watermark": False}


# --- What things are called -------------------------------------------------------------------------------------------


def test_fields_have_the_providers_names_and_words_and_constants_stand_beside_them(play: Stage) -> None:
    answer = play.generate(
        "worded",
        n=2,
        quality="high",
        image_config={"image_size": "2K", "aspect_ratio": "16:9"},
        seed=-7,
        strength=0.5,
        tiled=True,
        complexity="low",
        mode=2,
        tags=["a"],
        hints={"x": {"y": 1}},
        note="n",
    )
    assert answer.status == 200, answer.body
    assert play.provider.last.json == {
        "prompt": "a cube", "num_images": 2, "quality": "hd", "resolution": "2k", "aspect_ratio": "16:9", "seed": -7,
        "strength": 0.5, "tiled": True, "complexity": "low", "mode": 2, "tags": ["a"], "hints": {"x": {"y": 1}},
        "note": "n", "watermark": False, "safety": {"level": 2},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("quality", "sent", "charged"),
    [
        ("low", "standard", 100), ("LOW", "standard", 100), (" l ow\t", "standard", 100),
        ("Extra-HD", "Extra-HD", 9_000), ("extra-hd ", "Extra-HD", 9_000), ("Medium", "Medium", 5_000),
    ],
)  # fmt: skip
def test_a_quality_that_has_a_price_is_forwarded_as_what_it_is_charged_as(
    play: Stage, quality: str, sent: str, charged: int
) -> None:
    key = play.gateway.make_key(10**9)
    body = {"model": "priced", "prompt": "a cube", "quality": quality}
    assert ask("POST", play.gateway.url + GENERATIONS, key=key, body=body).status == 200
    assert play.provider.last.json["quality"] == sent
    assert [entry["charged"] for entry in play.gateway.ledger(key)] == [charged]


def test_a_size_is_told_in_the_words_that_the_provider_has_for_it(play: Stage) -> None:
    assert play.generate("worded", size="1024x1024").status == 200
    body = play.provider.last.json
    assert (body["resolution"], body["aspect_ratio"], "size" in body) == ("1k", "1:1", False)
    assert play.generate("worded", size="4k").status == 200
    assert play.provider.last.json["resolution"] == "4K"


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"seed": 1.5}, "invalid_request", "seed"),
        ({"seed": True}, "invalid_request", "seed"),
        ({"strength": "x"}, "invalid_request", "strength"),
        ({"tiled": 1}, "invalid_request", "tiled"),
        ({"complexity": "extreme"}, "invalid_request", "complexity"),
        ({"mode": True}, "invalid_request", "mode"),
        ({"mode": 2.0}, "invalid_request", "mode"),
        ({"tags": {}}, "invalid_request", "tags"),
        ({"hints": []}, "invalid_request", "hints"),
        ({"note": "x" * 1_001}, "invalid_request", "note"),
        ({"note": "http://169.254.169.254/latest"}, "invalid_request", "note"),
        ({"watermark": True}, "unknown_parameter", "watermark"),
        ({"resolution": "4k"}, "unknown_parameter", "resolution"),
        ({"num_images": 9}, "unknown_parameter", "num_images"),
        ({"Seed": 1}, "unknown_parameter", "Seed"),
    ],
)
def test_a_field_of_the_operators_is_checked_and_no_other_is_let_through(
    play: Stage, fields: dict[str, Any], code: str, param: str
) -> None:
    asked = len(play.provider.asked)
    answer = play.generate("worded", **fields)
    error = answer.json["error"]
    assert (answer.status, error["code"], error["param"]) == (400, code, param)
    assert len(play.provider.asked) == asked


@pytest.mark.parametrize(
    "name", ["watermark", "Watermark", "water_mark", "water-mark", "resolution", "RESOLUTION", "resolution[0]"]
)
def test_where_unknown_fields_are_forwarded_none_has_the_name_of_what_is_said_already(play: Stage, name: str) -> None:
    assert play.generate("open", other=1).status == 200
    assert play.provider.last.json == {"prompt": "a cube", "other": 1, "watermark": False}
    asked = len(play.provider.asked)
    answer = play.generate("open", **{name: True})
    assert (answer.status, answer.json["error"]["param"]) == (400, name)
    assert len(play.provider.asked) == asked


def test_edits_in_a_form_and_in_json_are_worded_alike(play: Stage) -> None:
    answer = play.form(
        EDITS, model="worded", prompt="a cube", n="2", quality="high", seed="-7", strength="0.5", tiled="true",
        mode="2", tags='["a"]', hints='{"x": 1}', note="n", size="2K",
    )  # fmt: skip
    assert answer.status == 200, answer.body
    assert play.provider.last.path == "/openai/deployments/acme/image-1/images/edits"
    assert play.provider.last.form == {
        "prompt": "a cube", "num_images": "2", "quality": "hd", "seed": "-7", "strength": "0.5", "tiled": "true",
        "mode": "2", "tags": '["a"]', "hints[x]": "1", "note": "n", "resolution": "2k", "watermark": "false",
        "safety[level]": "2", "image": PIXEL,
    }  # fmt: skip
    images = [{"image_url": "https://images.example/a.png"}]
    fields = {"n": 2, "quality": "high", "seed": -7, "mode": 2}
    assert play.ask(EDITS, {"model": "worded", "prompt": "a cube", "images": images, **fields}).status == 200
    assert play.provider.last.json == {
        "prompt": "a cube", "images": images, "num_images": 2, "quality": "hd", "seed": -7, "mode": 2,
        "watermark": False, "safety": {"level": 2},
    }  # fmt: skip
    for bad in ({"seed": "x"}, {"strength": "nan"}, {"tiled": "1"}, {"mode": "3"}, {"tags": "a"}, {"stranger": "1"}):
        assert play.form(EDITS, model="worded", prompt="x", **bad).json["error"]["param"] == next(iter(bad))


def test_variations_are_worded_too(play: Stage) -> None:
    assert play.form(VARIATIONS, model="worded", n="2", seed="5").status == 200
    assert play.provider.last.form == {
        "num_images": "2", "seed": "5", "watermark": "false", "safety[level]": "2", "image": PIXEL,
    }  # fmt: skip


def test_a_chat_is_worded_and_its_model_is_named_by_the_address_alone(play: Stage) -> None:
    drawn = {"choices": [{"message": {"content": "x", "images": [{"image_url": {"url": "https://a.example/1.png"}}]}}]}
    play.provider.answer = lambda _asked: Answered(body=orjson.dumps(drawn))
    try:
        assert play.chat("talker", max_tokens=7, seed=3, voice="low").status == 200
        refused = play.chat("talker", voice="high")
        assert play.chat("talker", seed="x").json["error"]["param"] == "seed"
    finally:
        play.provider.answer = lambda _asked: Answered()
    assert play.provider.last.path == "/openai/deployments/acme/talk-1/chat/completions"
    assert play.provider.last.json == {
        "messages": [{"role": "user", "content": "a cube"}], "modalities": ["image", "text"], "seed": 3, "voice": "low",
        "limits": {"images": 1, "tokens": 7}, "api_mode": "images",
    }  # fmt: skip
    assert (refused.status, refused.json["error"]["param"]) == (400, "voice")


def test_gemini_gets_constants_and_fields_where_they_belong(play: Stage) -> None:
    play.generate("googled", strength=0.25)
    body = play.provider.last.json
    assert body["safetySettings"] == [{"category": "ALL", "threshold": "OFF"}]
    config = body["generationConfig"]
    assert (config["candidateCount"], config["imageConfig"], "strength" in body) == (1, {"strength": 0.25}, False)
    play.chat("googled")
    assert play.provider.last.json["generationConfig"] == {
        "responseModalities": ["IMAGE", "TEXT"],
        "candidateCount": 1,
    }


def test_the_openai_sdk_asks_through_each_door(play: Stage) -> None:
    with openai.OpenAI(base_url=f"{play.gateway.url}/v1", api_key=play.gateway.make_key(10**9)) as sdk:
        for model in ("plain", "bearer", "azure", "scheme", "query", "file", "queryfile", "none"):
            made = sdk.images.generate(model=model, prompt="a cube", size="1024x1024")
            assert made.data is not None
            assert len(made.data) == 1
        sdk.images.generate(model="worded", prompt="a cube", quality="high", extra_body={"seed": 5})
        assert play.provider.last.json["seed"] == 5
        sdk.images.edit(model="worded", prompt="a cube", image=("a.png", PIXEL), extra_body={"seed": 5})
        assert play.provider.last.form["seed"] == "5"
        with pytest.raises(openai.BadRequestError):
            sdk.images.generate(model="worded", prompt="a cube", extra_body={"seed": "five"})


def test_no_secret_is_in_the_log(play: Stage) -> None:
    for model in ("query", "lost"):
        play.generate(model)
    log = (play.folder / "gateway.log").read_text()
    assert "provider lost" in log
    assert os.fspath(play.folder / "lost") in log
    for secret in (*SECRETS.values(), FILE_SECRET, NEXT_FILE_SECRET, "88%3De2", "was-there-at-the-start"):
        assert secret not in log
