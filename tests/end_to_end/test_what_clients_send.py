"""Requests as clients really send them, at providers of every dialect, over sockets."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import pytest

from proxy.domain.requests.image import LISTED_PARAMETERS
from tests.domain.answer_samples import events_of
from tests.support.forms import FORM, PNG, form, form_of, part
from tests.support.gateways import (
    Answer,
    RunningGateway,
    SampleProvider,
    ask,
    configuration,
    image_model,
    running_gateway,
    sample_provider,
)

IMAGES, EDITS, CHAT = "/v1/images/generations", "/v1/images/edits", "/v1/chat/completions"
DIALECTS = {"openai": "v1", "openrouter": "v1", "gemini": "v1beta"}
TALK: dict[str, Any] = {"messages": [{"role": "user", "content": "a cube"}], "modalities": ["image", "text"]}


class Scene:
    """A gateway at a provider of one dialect, with a model for each way to treat unknown fields."""

    def __init__(self, gateway: RunningGateway, provider: SampleProvider) -> None:
        self.gateway, self.provider = gateway, provider
        self.key = gateway.make_key()

    def send(self, path: str, body: Any, *, policy: str = "refuse", headers: dict[str, str] | None = None) -> Answer:
        self.provider.clear()
        if not isinstance(body, bytes):
            more = {} if path == CHAT else {"prompt": "a cube"}
            body = {"model": f"acme/{policy}", **more, **body}
        return ask("POST", self.gateway.url + path, key=self.key, body=body, headers=headers)

    def received(self) -> dict[str, Any]:
        [request] = self.provider.requests()
        return request

    def sent(self, path: str, body: Any, *, policy: str = "refuse", headers: dict[str, str] | None = None) -> Any:
        """What the provider receives of a request that is good."""
        answer = self.send(path, body, policy=policy, headers=headers)
        assert answer.status == 200, answer.body
        return self.received()


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Scene]]:
    folder = tmp_path_factory.mktemp("clients")
    models = [
        image_model(f"acme/{policy}", parameters=sorted(LISTED_PARAMETERS), unknown_parameters=policy)
        for policy in ("refuse", "drop", "forward")
    ]
    with sample_provider(folder, "--answer", "b64_json") as provider:
        tomls = {
            dialect: configuration(
                f"embedded:{folder}/{dialect}/data",
                provider.url,
                models=models,
                provider={"dialect": dialect, "base_url": f"{provider.url}/{base}"},
            )
            for dialect, base in DIALECTS.items()
        }
        with (
            running_gateway(folder / "openai", tomls["openai"]) as openai,
            running_gateway(folder / "openrouter", tomls["openrouter"]) as openrouter,
            running_gateway(folder / "gemini", tomls["gemini"]) as gemini,
        ):
            gateways = {"openai": openai, "openrouter": openrouter, "gemini": gemini}
            yield {dialect: Scene(gateway, provider) for dialect, gateway in gateways.items()}


# --- Fields that nobody knows -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("path", [IMAGES, EDITS, CHAT])
def test_an_unknown_field_is_refused_left_out_or_forwarded(scenes: dict[str, Scene], dialect: str, path: str) -> None:
    scene = scenes[dialect]
    more = {
        IMAGES: {},
        EDITS: {"images": [{"image_url": "data:image/png;base64,AAAA"}]},
        CHAT: TALK,
    }[path]
    body = {**more, "seed_phrase": {"of": [1, None]}}
    refused = scene.send(path, body)
    assert (refused.status, refused.json["error"]["param"]) == (400, "seed_phrase")
    assert refused.json["error"]["code"] == "unknown_parameter"
    assert scene.provider.requests() == []
    assert "seed_phrase" not in scene.sent(path, body, policy="drop")["body"]
    assert scene.sent(path, body, policy="forward")["body"]["seed_phrase"] == {"of": [1, None]}
    assert "seed_phrase" not in scene.sent(path, {**more, "seed_phrase": None})["body"]


@pytest.mark.parametrize("path", [IMAGES, CHAT])
def test_no_unknown_field_replaces_what_is_priced(scenes: dict[str, Scene], path: str) -> None:
    scene = scenes["gemini"]
    four_k = {"imageConfig": {"imageSize": "4K"}}
    body = {
        **(TALK if path == CHAT else {}),
        "generationConfig": four_k,
        "generation_config": four_k,
        "image_config": {"image_size": "1k", "strength": 1},
    }
    received = scene.sent(path, body, policy="forward")["body"]
    assert received["generationConfig"]["imageConfig"] == {"imageSize": "1K", "strength": 1}
    assert "generation_config" not in received


def test_no_unknown_field_asks_openrouter_for_a_larger_image(scenes: dict[str, Scene]) -> None:
    received = scenes["openrouter"].sent(IMAGES, {"resolution": "4K", "input_references": [], "x": 1}, policy="forward")
    assert received["body"].keys() & {"resolution", "input_references"} == set()
    assert received["body"]["x"] == 1


def test_a_form_with_unknown_texts_and_files(scenes: dict[str, Scene]) -> None:
    scene = scenes["openai"]
    kind = {"Content-Type": FORM}

    def body(policy: str) -> bytes:
        texts = [("seed", "7"), ("prompt", "x"), ("model", f"acme/{policy}")]
        return form_of([("sketch", PNG), *texts, ("image", PNG)])

    refused = scene.send(EDITS, body("refuse"), headers=kind)
    assert (refused.status, refused.json["error"]["code"]) == (400, "unknown_parameter")
    assert refused.json["error"]["param"] in ("seed", "sketch")
    dropped = scene.sent(EDITS, body("drop"), headers=kind)
    assert [part["name"] for part in dropped["parts"]] == ["model", "prompt", "image"]
    forwarded = scene.sent(EDITS, body("forward"), headers=kind)
    assert [part["name"] for part in forwarded["parts"]] == ["model", "prompt", "seed", "image", "sketch"]
    scene.gateway.check_books(scene.key)


# --- OpenRouter's own fields ------------------------------------------------------------------------------------------

OWN = {
    "provider": {"order": ["one"], "data_collection": "deny"},
    "include_reasoning": True,
    "usage": {"include": True},
    "plugins": [{"id": "web"}],
    "models": ["acme/dear"],
    "top_k": 4,
    "min_p": 0.1,
    "session_id": "s",
    "cache_control": {"type": "ephemeral"},
}


def test_openrouters_own_fields_are_understood_on_its_dialect_alone(scenes: dict[str, Scene]) -> None:
    received = scenes["openrouter"].sent(CHAT, {**TALK, **OWN})["body"]
    assert received["provider"] == {"data_collection": "deny"}
    assert not {"plugins", "models"} & set(received)
    assert {name: received[name] for name in ("top_k", "min_p", "session_id", "cache_control")} == {
        name: OWN[name] for name in ("top_k", "min_p", "session_id", "cache_control")
    }
    for name, value in OWN.items():
        assert scenes["openai"].send(CHAT, {**TALK, name: value}).json["error"]["param"] == name


def test_usage_is_shown_in_a_stream_where_it_is_asked_for_in_openrouters_words(scenes: dict[str, Scene]) -> None:
    answer = scenes["openrouter"].send(CHAT, {**TALK, "usage": {"include": True}, "stream": True})
    assert any(event.get("usage") for event in events_of(answer.body))


# --- Files that nobody chose ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mask", "markup", "image[]"])
@pytest.mark.parametrize("kind", ["application/octet-stream", ""])
def test_an_empty_file_without_a_name_is_a_field_left_out(scenes: dict[str, Scene], name: str, kind: str) -> None:
    texts = [part("model", "acme/refuse"), part("prompt", "a cube")]
    empty = part(name, b"", file_name="", kind=kind)
    received = scenes["openai"].sent(EDITS, form(*texts, empty, part("image", PNG)), headers={"Content-Type": FORM})
    assert [sent["name"] for sent in received["parts"]] == ["model", "prompt", "image"]
    named = form(*texts, part(name, b"", kind=kind), part("image", PNG))
    assert scenes["openai"].send(EDITS, named, headers={"Content-Type": FORM}).json["error"]["param"] == name
    alone = form(*texts, part("image", b"", file_name="", kind=kind))
    assert scenes["openai"].send(EDITS, alone, headers={"Content-Type": FORM}).json["error"]["param"] == "image"


# --- Sizes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("path", [IMAGES, CHAT])
@pytest.mark.parametrize(
    ("written", "word", "units"),
    [("4k", "4K", 12_500), (" 4K ", "4K", 12_500), ("2k", "2K", 5_000), ("\t2K", "2K", 5_000)],
)
def test_a_size_word_leaves_as_providers_write_it_and_costs_what_it_is(
    scenes: dict[str, Scene], dialect: str, path: str, written: str, word: str, units: int
) -> None:
    scene = scenes[dialect]
    before = sum(entry["charged"] for entry in scene.gateway.ledger(scene.key))
    body = {**(TALK if path == CHAT else {}), "image_config": {"image_size": written}}
    received = scene.sent(path, body)["body"]
    config = received.get("generationConfig", {}).get("imageConfig") or received.get("image_config")
    assert config in ({"imageSize": word}, {"image_size": word}) or received["resolution"] == word
    assert sum(entry["charged"] for entry in scene.gateway.ledger(scene.key)) - before == units


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("size", ["3840*2160", "3840×2160", "3840 x 2160", "3840X2160px", "+3840x2160"])
def test_what_is_no_size_is_refused_by_name(scenes: dict[str, Scene], dialect: str, size: str) -> None:
    scene = scenes[dialect]
    for path, body, param in (
        (IMAGES, {"size": size}, "size"),
        (IMAGES, {"image_config": {"image_size": size}}, "image_config.image_size"),
        (CHAT, {**TALK, "image_config": {"image_size": size}}, "image_config.image_size"),
    ):
        refused = scene.send(path, body)
        assert (refused.status, refused.json["error"]["param"]) == (400, param)
        assert scene.provider.requests() == []


# --- Images within requests -------------------------------------------------------------------------------------------

JPEG = b"\xff\xd8\xff\xe0" + b"made up " * 8
PHOTOGRAPH = base64.b64encode(b"\xff\xd8\xff\xe0" + bytes(range(256)) * 12_000).decode()
"""Three megabytes."""


def images_received(received: dict[str, Any]) -> list[tuple[str, str]]:
    """The media type and the base64 of each image that the provider has been sent, whatever its dialect."""
    found: list[tuple[str, str]] = []
    rest: list[Any] = [received["body"]]
    while rest:
        value = rest.pop(0)
        if isinstance(value, dict):
            if "mimeType" in value:
                found.append((value["mimeType"], value["data"]))
            rest += value.values()
        elif isinstance(value, list):
            rest += value
        elif isinstance(value, str) and value.startswith("data:"):
            kind, _, data = value.removeprefix("data:").partition(";base64,")
            found.append((kind, data))
    return found


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("said", ["image/jpg", "image/pjpeg", "image/png", "application/octet-stream", "image/jpeg"])
def test_the_bytes_of_an_image_tell_its_kind(scenes: dict[str, Scene], dialect: str, said: str) -> None:
    scene, data = scenes[dialect], base64.b64encode(JPEG).decode()
    address = f"data:{said};base64,{data}"
    edit = {"images": [{"image_url": address}]}
    parts = [{"type": "text", "text": "a cube"}, {"type": "image_url", "image_url": {"url": address}}]
    chat = {"messages": [{"role": "user", "content": parts}]}
    assert images_received(scene.sent(EDITS, edit)) == [("image/jpeg", data)]
    assert images_received(scene.sent(CHAT, {**TALK, **chat})) == [("image/jpeg", data)]
    texts = [part("model", "acme/refuse"), part("prompt", "a cube")]
    received = scene.sent(EDITS, form(*texts, part("image", JPEG, kind=said)), headers={"Content-Type": FORM})
    if dialect == "openai":
        assert [sent["content_type"] for sent in received["parts"] if sent["filename"]] == ["image/jpeg"]
    else:
        assert images_received(received) == [("image/jpeg", data)]


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("form_of_part", ["openai", "anthropic", "google"])
def test_a_photograph_is_sent_in_json(scenes: dict[str, Scene], dialect: str, form_of_part: str) -> None:
    scene, address = scenes[dialect], f"data:image/png;base64,{PHOTOGRAPH}"
    part_of = {
        "openai": {"type": "image_url", "image_url": {"url": address}},
        "anthropic": {"type": "image", "source": {"type": "base64", "media_type": "image/jpeg", "data": PHOTOGRAPH}},
        "google": {"inlineData": {"mimeType": "image/jpeg", "data": PHOTOGRAPH}},
    }[form_of_part]
    turns = [
        {"role": "user", "content": [{"type": "text", "text": "a cube"}]},
        {"role": "assistant", "content": "here", "images": [part_of]},
        {"role": "user", "content": [{"type": "text", "text": "now blue"}, part_of]},
    ]
    received = images_received(scene.sent(CHAT, {**TALK, "messages": turns}))
    assert received == [("image/jpeg", PHOTOGRAPH)] * 2
    if form_of_part == "openai":
        assert images_received(scene.sent(EDITS, {"images": [{"image_url": address}]})) == [("image/jpeg", PHOTOGRAPH)]


def test_what_came_with_an_answer_comes_back_with_it(scenes: dict[str, Scene]) -> None:
    extra = {"google": {"thought_signature": "c2lnbmVk"}}
    drawn = {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{base64.b64encode(JPEG).decode()}"}}
    turn = {"role": "assistant", "content": "here", "extra_content": extra, "reasoning_details": [{"type": "x"}]}
    turn["images"] = [{**drawn, "index": 0, "extra_content": extra}]
    messages = [*TALK["messages"], turn, {"role": "user", "content": "now blue"}]
    for dialect in ("openai", "openrouter"):
        assert scenes[dialect].sent(CHAT, {**TALK, "messages": messages})["body"]["messages"] == messages
    contents = scenes["gemini"].sent(CHAT, {**TALK, "messages": messages})["body"]["contents"]
    assert [one.get("thoughtSignature") for one in contents[1]["parts"]] == ["c2lnbmVk", "c2lnbmVk"]


def test_a_part_that_cannot_be_translated_is_refused_by_its_place(scenes: dict[str, Scene]) -> None:
    for odd in ({"type": "input_audio", "input_audio": {}}, {"type": "image", "file_id": "f"}, {"type": "image"}):
        refused = scenes["gemini"].send(CHAT, {**TALK, "messages": [{"role": "user", "content": [odd]}]})
        assert (refused.status, refused.json["error"]["param"]) == (400, "messages")
        assert "messages[0].content[0]" in refused.json["error"]["message"]


DATA = "data:image/jpeg;base64,"
TEXTS = {
    "markdown": "here: ![a cube](%s) and more",
    "html": '<p>h\u00e9re \U0001f600 <img src="%s" alt="a cube"></p>',
    "nothing else": "%s",
}


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("as_part", [False, True])
@pytest.mark.parametrize("form", TEXTS)
def test_an_image_in_the_text_of_an_answer_is_sent_back_whole(
    scenes: dict[str, Scene], dialect: str, form: str, as_part: bool
) -> None:
    picture = base64.b64encode(JPEG + bytes(range(256)) * 8_000).decode()
    text = TEXTS[form] % f"{DATA}{picture}"
    content = [{"type": "text", "text": text}] if as_part else text
    messages = [*TALK["messages"], {"role": "assistant", "content": content}, {"role": "user", "content": "now blue"}]
    scene = scenes[dialect]
    scene.provider.clear()
    key, request = scene.gateway.make_key(100_000), {"model": "acme/refuse", **TALK, "messages": messages}
    answer = ask("POST", scene.gateway.url + CHAT, key=key, body=request)
    assert answer.status == 200, answer.body
    assert scene.gateway.quota(key)["posted"] == 5_000
    body = scene.received()["body"]
    assert len(text) > 2_700_000
    if dialect == "gemini":
        assert body["contents"][1]["parts"] == [{"text": text}]
    else:
        assert body["messages"] == messages


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("place", ["beside the answer's text", "in what the user says"])
def test_a_picture_of_two_megabytes_may_be_sent_with_the_next_turn(
    scenes: dict[str, Scene], dialect: str, place: str
) -> None:
    """With the limits that a gateway has unless it is told otherwise."""
    picture = base64.b64encode(JPEG + bytes(range(256)) * 8_000).decode()
    part = {"type": "image_url", "image_url": {"url": f"{DATA}{picture}"}}
    if place == "in what the user says":
        messages: list[Any] = [{"role": "user", "content": [{"type": "text", "text": "a hat on it"}, part]}]
    else:
        answered = {"role": "assistant", "content": "here", "images": [part]}
        messages = [*TALK["messages"], answered, {"role": "user", "content": "now blue"}]
    received = scenes[dialect].sent(CHAT, {**TALK, "messages": messages})
    assert images_received(received) == [("image/jpeg", picture)]


def test_images_in_texts_that_take_four_times_their_bytes_have_a_bound_of_their_own(scenes: dict[str, Scene]) -> None:
    """An emoji makes each character of its text take four bytes of memory."""
    picture = base64.b64encode(JPEG + bytes(7 * 2**20)).decode()
    for text, status in ((f"![]({DATA}{picture})", 200), (f"\U0001f600 ![]({DATA}{picture})", 413)):
        answer = scenes["openai"].send(CHAT, {**TALK, "messages": [{"role": "user", "content": text}]})
        assert answer.status == status
    assert "as parts of their own" in answer.json["error"]["message"]
