"""What providers really answer: each deviation in each dialect, on both endpoints, is delivered and charged as one."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import orjson
import pytest

from tests.domain.answer_samples import events_of
from tests.support.gateways import ALL_PARAMETERS, Answer, RunningGateway, ask, configuration, running_gateway
from tests.support.scripted_provider import Reply, ScriptedProvider, scripted_provider

PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\x10\0\0\0\x10\0\x08\x02\0\0\0" + bytes(range(200))).decode()
OTHER = base64.b64encode(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\4\0\0\0\4\0\x08\x02\0\0\0" + bytes(200)).decode()
LINK = "https://images.example/1.png?a=1"
DATA = "data:image/png;base64,"
DIALECTS = ("openai", "openrouter", "gemini")
IMAGE_PRICE = 5_000
IMAGES, CHAT = "/v1/images/generations", "/v1/chat/completions"


@dataclass(frozen=True)
class Bench:
    """A gateway whose models are made by a provider that answers with ``reply``."""

    provider: ScriptedProvider
    gateway: RunningGateway

    def send(self, dialect: str, path: str, reply: Reply, **fields: Any) -> tuple[Answer, dict[str, Any]]:
        """One request, and its ledger entry; the books are right after it."""
        self.provider.script = lambda _number: reply
        key = self.gateway.make_key(1_000_000, team=f"t{self.provider.received}")
        if path == CHAT:
            body: dict[str, Any] = {"messages": [{"role": "user", "content": "a"}], "modalities": ["image", "text"]}
        else:
            body = {"prompt": "a"}
        before = self.provider.received
        answer = ask("POST", self.gateway.url + path, key=key, body={"model": f"acme/{dialect}", **body, **fields})
        assert self.provider.received == before + 1
        (entry,) = self.gateway.ledger(key)
        self.gateway.check_books(key)
        return answer, entry


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    folder = tmp_path_factory.mktemp("deviations")
    with scripted_provider(lambda _number: Reply()) as provider:
        models = [
            {
                "id": f"acme/{dialect}",
                "provider": dialect,
                "upstream_model": "image-1",
                "token_multiplier": "1",
                "parameters": [name for name in ALL_PARAMETERS if dialect == "openai" or name != "n"] + ["stream"],
            }
            for dialect in DIALECTS
        ]
        toml = configuration(f"embedded:{folder}/data", provider.url, models=models, provider={"name": "unused"})
        toml += "".join(
            f'\n[[providers]]\nname = "{dialect}"\ndialect = "{dialect}"\nbase_url = "{provider.url}"\n'
            'api_key_env = "SAMPLE_PROVIDER_KEY"\n'
            for dialect in DIALECTS
        )
        with running_gateway(folder, toml) as gateway:
            yield Bench(provider, gateway)


def as_json(document: object) -> bytes:
    return json.dumps(document).encode()


def as_events(*documents: object) -> bytes:
    return b"".join(b"data: %b\n\n" % as_json(document) for document in documents)


def as_stream(*pieces: bytes) -> Reply:
    return Reply(body=b"".join(pieces), headers={"Content-Type": "text/event-stream"})


def part(address: str = DATA + PNG) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": address}}


def message(**members: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "message": {"role": "assistant", **members}, "finish_reason": "stop"}]}


def delta(**members: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"role": "assistant", **members}, "finish_reason": "stop"}]}


def candidate(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"candidates": [{"content": {"parts": list(parts), "role": "model"}, "finishReason": "STOP"}]}


def inline(data: str = PNG, **more: Any) -> dict[str, Any]:
    return {"inlineData": {"mimeType": "image/png", "data": data}, **more}


COMPLETED = {"type": "image_generation.completed", "b64_json": PNG, "created_at": 1}

# What each dialect's providers answer where they do as their pages say.
DOCUMENTS: dict[tuple[str, str], dict[str, Any]] = {
    ("openai", IMAGES): {"created": 1, "data": [{"b64_json": PNG}]},
    ("openai", CHAT): message(content=None, images=[part()]),
    ("openrouter", IMAGES): message(content="", images=[part()]),
    ("openrouter", CHAT): message(content="", images=[part()]),
    ("gemini", IMAGES): candidate(inline()),
    ("gemini", CHAT): candidate(inline()),
}
EVENTS: dict[tuple[str, str], dict[str, Any]] = {
    **DOCUMENTS,
    ("openai", IMAGES): COMPLETED,
    **{(dialect, path): delta(images=[part()]) for dialect in ("openai", "openrouter") for path in (IMAGES, CHAT)
       if (dialect, path) != ("openai", IMAGES)},
}  # fmt: skip

FORMS: dict[str, Callable[[object, object], Reply]] = {
    "as it should be": lambda d, _e: Reply(body=as_json(d)),
    "no content type": lambda d, _e: Reply(body=as_json(d), headers={"Content-Type": ""}),
    "events without a content type": lambda _d, e: Reply(body=as_events(e), headers={"Content-Type": ""}),
    "as text": lambda d, _e: Reply(body=as_json(d), headers={"Content-Type": "text/plain; charset=utf-8"}),
    "JSON as events": lambda d, _e: Reply(body=as_json(d), headers={"Content-Type": "text/event-stream"}),
    "JSON with a stream's end": lambda d, _e: Reply(
        body=as_json(d) + b"\n\ndata: [DONE]\n\n", headers={"Content-Type": "text/event-stream"}
    ),
    "events as JSON": lambda _d, e: Reply(body=as_events(e) + b"data: [DONE]\n\n"),
    "events as text": lambda _d, e: Reply(body=as_events(e), headers={"Content-Type": "text/plain"}),
    "events after comments": lambda _d, e: Reply(
        body=b": waiting\n\n: waiting\n\n" + as_events(e), headers={"Content-Type": "text/event-stream"}
    ),
    "a byte order mark": lambda d, _e: Reply(body=b"\xef\xbb\xbf" + as_json(d)),
    "blanks before it": lambda d, _e: Reply(body=b"\r\n \n" + as_json(d)),
    "a mark before events": lambda _d, e: Reply(body=b"\xef\xbb\xbf" + as_events(e)),
    "two marks before it": lambda d, _e: Reply(body=b"\xef\xbb\xbf\xef\xbb\xbf" + as_json(d)),
    "a label of a compression that somebody has undone": lambda d, _e: Reply(
        body=as_json(d), headers={"Content-Encoding": "br"}
    ),
    "signs of life that are no JSON": lambda _d, e: as_stream(
        b"data: keep-alive\n\ndata:\n\ndata: null\n\n", as_events(e), b"data: ping\n\ndata: [DONE]\n\n"
    ),
    "data twice": lambda _d, e: as_stream(b"data: ", as_events(e), b"data: data: [DONE]\n\n"),
    "a blank after the stream's end": lambda _d, e: as_stream(as_events(e), b"data: [DONE] \n\n"),
    "one line's end between events": lambda _d, e: as_stream(as_events(e)[:-1], b"data: [DONE]\n"),
    "JSON and something after it": lambda d, _e: Reply(body=as_json(d) + b"\n\0 OK"),
    "an empty error at its begin": lambda d, _e: Reply(body=b'{"error":{},' + as_json(d)[1:]),
    "an error without a word at its begin": lambda d, _e: Reply(
        body=b'{"error":{"message":"","code":null,"status":0},' + as_json(d)[1:]
    ),
    "an empty text as its error": lambda d, _e: Reply(body=as_json(d)[:-1] + b',"error":""}'),
    "no error": lambda d, _e: Reply(body=as_json(d)[:-1] + b',"error":false}'),
    "an empty error in an event": lambda _d, e: as_stream(as_events(e)[:-3], b',"error":{"message":""}}\n\n'),
    "unknown members and nulls": lambda d, _e: Reply(body=as_json(d)[:-1] + b',"x":{"y":[null]},"error":null}'),
}


def images_delivered(answer: Answer, path: str) -> list[str]:
    """The images that the client has, as base64 or address."""
    documents = list(events_of(answer.body)) if answer.body.startswith((b"event", b"data", b":")) else [answer.json]
    found: list[str] = []
    for document in documents:
        if path == IMAGES:
            entries = document.get("data", [document] if "type" in document else [])
            found += [entry.get("b64_json") or entry["url"] for entry in entries]
        else:
            for choice in document["choices"]:
                said = choice.get("message") or choice["delta"]
                found += [each["image_url"]["url"].removeprefix(DATA) for each in said.get("images", ())]
    return found


@pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
@pytest.mark.parametrize("form", FORMS, ids=FORMS)
@pytest.mark.parametrize(("dialect", "path"), DOCUMENTS, ids=lambda value: value.rpartition("/")[2])
def test_the_bytes_say_what_an_answer_is(bench: Bench, dialect: str, path: str, form: str, *, stream: bool) -> None:
    reply = FORMS[form](DOCUMENTS[dialect, path], EVENTS[dialect, path])
    answer, entry = bench.send(dialect, path, reply, stream=stream)
    assert answer.status == 200, answer.body
    assert images_delivered(answer, path) == [PNG]
    assert (entry["outcome"], entry["images"], entry["charged"]) == ("delivered", 1, IMAGE_PRICE)


# --- Where images stand ----------------------------------------------------------------------------------------------

PLACES: dict[str, dict[str, Any]] = {
    "images": {"created": 1, "images": [{"url": LINK}]},
    "images as strings": {"images": [DATA + PNG]},
    "bare base64 as a string": {"images": [PNG]},
    "an address in b64_json": {"data": [{"b64_json": DATA + PNG}]},
    "base64 in url": {"data": [{"url": PNG}]},
    "a data address in url": {"data": [{"url": DATA + PNG}]},
    "an object in data": {"data": {"url": LINK}},
    "output": {"output": [LINK]},
    "output as a string": {"output": LINK},
    "results": {"output": {"results": [{"url": LINK}]}},
    "artifacts": {"artifacts": [{"base64": PNG, "finishReason": "SUCCESS"}]},
    "predictions": {"predictions": [{"bytesBase64Encoded": PNG, "mimeType": "image/png"}]},
    "a tool's result": {"output": [{"type": "image_generation_call", "result": PNG}]},
    "parts with an image": {"output": {"choices": [{"message": {"content": [{"image": LINK}]}}]}},
    "Markdown": message(content=f"Here: ![a cube]({DATA}{PNG}) as you asked."),
    "a link in Markdown": message(content=f"![a cube]({LINK})"),
    "HTML": message(content=f'<img src="{LINK}" alt="">'),
    "a link behind a long description": message(content=f"Here: ![{'a cube ' * 60}]({LINK})"),
    "a link behind a description in HTML": message(content=f'<img alt="{"a > b " * 60}" src = "{LINK}">'),
    "an address as the text": message(content=DATA + PNG),
    "a link as the text": message(content=LINK),
    "bare base64 as the text": message(content=PNG),
    "bare base64 between blanks": message(content=f"\n{PNG}\n"),
    "a reference at the text's end": message(content=f"![a cube][1]\n\n[1]: {DATA}{PNG}"),
    "strings in images": message(content="", images=[DATA + PNG]),
    "an output_image part": message(content=[{"type": "output_image", "image_url": DATA + PNG}]),
    "multi_mod_content": message(multi_mod_content=[{"inline_data": {"mime_type": "image/png", "data": PNG}}]),
    "a message's inline data": message(inline_data={"mime_type": "image/png", "data": PNG}),
    "snake case": candidate({"inline_data": {"mime_type": "image/png", "data": PNG}}),
    "a thought before it": candidate(inline(OTHER, thought=True), inline()),
    "a list of addresses": {"data": {"image_urls": [LINK], "image_base64": None}},
    "a list of base64": {"data": {"image_base64": [PNG]}, "base_resp": {"status_code": 0, "status_msg": "success"}},
    "binary data in base64": {"code": 10000, "data": {"binary_data_base64": [PNG], "image_urls": []}},
    "addresses alone": {"image_urls": [LINK]},
    "an address in a list": {"data": [{"url": [LINK]}]},
    "an object in images": {"images": {"url": LINK}},
    "what is called a sample": {"id": "1", "status": "Ready", "result": {"sample": LINK, "prompt": "a"}},
    "a response within": {"response": candidate(inline())},
    "a body within": {"statusCode": 200, "body": {"created": 1, "data": [{"b64_json": PNG}]}},
    "an event of OpenAI's responses": {
        "type": "response.output_item.done",
        "item": {"type": "image_generation_call", "id": "1", "result": PNG},
    },
    "one that failed before it": {"data": [{"error": {"code": "OutputSensitive", "message": "no"}}, {"url": LINK}]},
    "a message's image": message(content="", image={"url": LINK}),
    "a message's address": message(content="", image_url=LINK),
    "a message's object of images": message(content="", images={"url": DATA + PNG}),
    "a message's addresses": message(content="", image_urls=[LINK]),
    "an object as content": message(content={"type": "image_url", "image_url": {"url": LINK}}),
    "a message's parts": message(content=None, parts=[inline()]),
    "a file's data": message(content=[{"type": "file", "file": {"filename": "1.png", "file_data": DATA + PNG}}]),
    "a file": candidate({"fileData": {"mimeType": "image/png", "fileUri": LINK}}),
}


@pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("place", PLACES, ids=PLACES)
def test_images_are_found_wherever_they_stand(bench: Bench, dialect: str, place: str, *, stream: bool) -> None:
    answer, entry = bench.send(dialect, IMAGES, Reply(body=as_json(PLACES[place])), stream=stream)
    assert answer.status == 200, answer.body
    assert images_delivered(answer, IMAGES) in ([PNG], [LINK])
    assert (entry["outcome"], entry["images"], entry["charged"]) == ("delivered", 1, IMAGE_PRICE)
    if not stream:
        assert type(answer.json["created"]) is int


IN_CHAT = [
    "bare base64 as the text", "bare base64 between blanks", "a reference at the text's end",
    "Markdown", "a link in Markdown", "HTML", "a link behind a long description",
    "a link behind a description in HTML", "an address as the text", "a link as the text", "strings in images",
    "an output_image part", "multi_mod_content", "a message's inline data", "a message's image",
    "a message's address", "a message's object of images", "a message's addresses", "an object as content",
    "a message's parts", "a file's data",
]  # fmt: skip


@pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
@pytest.mark.parametrize("events", [False, True], ids=["from json", "from events"])
@pytest.mark.parametrize("dialect", ["openai", "openrouter"])
@pytest.mark.parametrize("place", IN_CHAT)
def test_chat_finds_the_same(bench: Bench, dialect: str, place: str, *, events: bool, stream: bool) -> None:
    document = PLACES[place]
    said = document["choices"][0]["message"]
    body = as_events(delta(**said)) + b"data: [DONE]\n\n" if events else as_json(document)
    answer, entry = bench.send(dialect, CHAT, Reply(body=body), stream=stream)
    assert answer.status == 200, answer.body
    assert (entry["outcome"], entry["images"], entry["charged"]) == ("delivered", 1, IMAGE_PRICE)
    assert PNG.encode() in answer.body.replace(b"\\/", b"/") or LINK.encode() in answer.body


def test_a_text_that_begins_as_an_image_does_is_text(bench: Bench) -> None:
    text = "iVBORw0KGgo is how every PNG begins in base64."
    document = {**message(content=text), "usage": {"prompt_tokens": 10, "completion_tokens": 20}}
    answer, entry = bench.send("openai", CHAT, Reply(body=as_json(document)))
    assert answer.json["choices"][0]["message"]["content"] == text
    assert (entry["images"], entry["charged"]) == (0, 30)


@pytest.mark.parametrize("text", [f"![a]({DATA}{PNG})", f'<img src="{LINK}">', LINK])
@pytest.mark.parametrize("modalities", [None, ["text"]])
def test_a_text_that_nobody_asked_an_image_of_is_text(bench: Bench, text: str, modalities: list[str] | None) -> None:
    document = {**message(content=text), "usage": {"prompt_tokens": 10, "completion_tokens": 20}}
    answer, entry = bench.send("openai", CHAT, Reply(body=as_json(document)), modalities=modalities)
    assert answer.json["choices"][0]["message"]["content"] == text
    assert (entry["images"], entry["charged"]) == (0, 30)


@pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
@pytest.mark.parametrize("dialect", DIALECTS)
def test_one_document_in_each_line(bench: Bench, dialect: str, *, stream: bool) -> None:
    lines = [{"status": "drawing"}, {"data": [{"b64_json": PNG}]}, {"data": [{"url": LINK}]}]
    body = b"".join(as_json(line) + b"\n" for line in lines)
    reply = Reply(body=body, headers={"Content-Type": "application/x-ndjson"})
    answer, entry = bench.send(dialect, IMAGES, reply, stream=stream)
    assert images_delivered(answer, IMAGES) == [PNG, LINK]
    assert (entry["outcome"], entry["images"]) == ("delivered", 2)


@pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
@pytest.mark.parametrize(
    "document", [[candidate(inline()), candidate({"text": "Here."})], {"response": candidate(inline())}]
)
def test_a_gemini_chat_within_something_else(bench: Bench, document: Any, *, stream: bool) -> None:
    answer, entry = bench.send("gemini", CHAT, Reply(body=as_json(document)), stream=stream)
    assert images_delivered(answer, CHAT) == [PNG]
    assert (entry["outcome"], entry["images"], entry["charged"]) == ("delivered", 1, IMAGE_PRICE)


@pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
def test_one_image_of_several_that_fails_takes_none_of_the_others_away(bench: Bench, *, stream: bool) -> None:
    failed = {"type": "image_generation.partial_failed", "error": {"code": "OutputSensitive", "message": "no"}}
    done = {"type": "image_generation.partial_succeeded", "image_index": 1, "url": LINK}
    end = {"type": "image_generation.completed", "usage": {"generated_images": 1, "total_tokens": 5}}
    answer, entry = bench.send("openai", IMAGES, Reply(body=as_events(failed, done, end)), stream=stream)
    assert images_delivered(answer, IMAGES) == [LINK]
    assert (entry["outcome"], entry["images"], entry["charged"]) == ("delivered", 1, IMAGE_PRICE)
    nothing, entry = bench.send("openai", IMAGES, Reply(body=as_events(failed, end)), stream=stream)
    assert nothing.status == 400, nothing.body
    assert (nothing.json["error"]["code"], nothing.json["error"]["message"]) == ("OutputSensitive", "no")
    assert (entry["images"], entry["charged"]) == (0, 0)


JPEG = b"\xff\xd8\xff\xfe" + bytes(range(200)) + b"\xfb\xff\xfe\xff"
WRITTEN: dict[str, Callable[[str], str]] = {
    "in lines": lambda text: "\n".join(text[at : at + 76] for at in range(0, len(text), 76)) + "\r\n",
    "after a blank": lambda text: " " + text,
    "for addresses": lambda text: text.replace("+", "-").replace("/", "_").rstrip("="),
    "behind a lead and a blank": lambda text: "data:image/jpeg;base64, " + text,
}


@pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("written", WRITTEN.values(), ids=WRITTEN)
def test_base64_is_base64_alone_however_it_is_written(
    bench: Bench, dialect: str, written: Callable[[str], str], *, stream: bool
) -> None:
    text = base64.b64encode(JPEG).decode()
    reply = Reply(body=as_json({"created": 1, "data": [{"b64_json": written(text)}]}))
    answer, entry = bench.send(dialect, IMAGES, reply, stream=stream)
    assert images_delivered(answer, IMAGES) == [text]
    assert (entry["outcome"], entry["images"], entry["charged"]) == ("delivered", 1, IMAGE_PRICE)


# --- The same image twice --------------------------------------------------------------------------------------------

TWICE: dict[str, bytes] = {
    "in data": as_json({"created": 1, "data": [{"b64_json": PNG}, {"b64_json": PNG}]}),
    "in two places": as_json({"data": [{"b64_json": PNG}], "images": [DATA + PNG]}),
    "as events": as_events(COMPLETED, COMPLETED),
    "in images and in content": as_json(message(content=[part()], images=[part()])),
    "in images and in the text": as_json(message(content=f"![a]({DATA}{PNG})", images=[part()])),
    "in two candidates' parts": as_json(candidate(inline(), inline())),
}


@pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("body", TWICE.values(), ids=TWICE)
def test_the_same_image_twice_is_one_image(bench: Bench, dialect: str, body: bytes, *, stream: bool) -> None:
    answer, entry = bench.send(dialect, IMAGES, Reply(body=body), stream=stream)
    assert images_delivered(answer, IMAGES) == [PNG]
    assert (entry["images"], entry["charged"]) == (1, IMAGE_PRICE)


# --- What breaks off -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cut(Reply):
    """An answer whose length promises more than comes."""

    missing: int = 7

    @property
    def length(self) -> int:
        return len(self.body) + self.missing


@pytest.mark.parametrize(
    ("dialect", "path", "whole"),
    [
        ("openai", IMAGES, as_json({"created": 1, "data": [{"b64_json": PNG}, {"b64_json": OTHER}]})),
        ("openrouter", IMAGES, as_json(message(images=[part(), part(DATA + OTHER)]))),
        ("gemini", IMAGES, as_json(candidate(inline(), inline(OTHER)))),
        ("openai", CHAT, as_json(message(images=[part(), part(DATA + OTHER)]))),
        ("gemini", CHAT, as_json(candidate(inline(), inline(OTHER)))),
    ],
)
def test_a_small_answer_that_breaks_off_is_closed_after_its_last_image(
    bench: Bench, dialect: str, path: str, whole: bytes
) -> None:
    cut = whole[: whole.index(OTHER.encode()) + 40]
    answer, entry = bench.send(dialect, path, Cut(body=cut))
    assert answer.status == 200, answer.body
    assert images_delivered(answer, path) == [PNG]
    assert (entry["outcome"], entry["images"], entry["charged"]) == ("truncated", 1, IMAGE_PRICE)
    nothing, entry = bench.send(dialect, path, Cut(body=whole[: whole.index(PNG.encode()) + 40]))
    assert (nothing.status, nothing.headers["x-should-retry"]) == (502, "false")
    assert (entry["images"], entry["charged"]) == (0, 0)


# More than is held: the client has most of it before anything is wrong.
HUGE = base64.b64encode(base64.b64decode(PNG) + bytes(range(256)) * 600).decode()
NO_MORE = {"error": {"message": "no more", "code": 500}}
LARGE_ANSWERS: dict[str, tuple[str, str, bytes]] = {
    "openai": ("openai", IMAGES, as_json({"created": 1, "data": [{"b64_json": HUGE}, {"b64_json": OTHER}]})),
    "openrouter": ("openrouter", IMAGES, as_json(message(images=[part(DATA + HUGE), part(DATA + OTHER)]))),
    "gemini": ("gemini", IMAGES, as_json(candidate(inline(HUGE), inline(OTHER)))),
    "a chat": ("openai", CHAT, as_json(message(content="", images=[part(DATA + HUGE), part(DATA + OTHER)]))),
    "gemini's chat": ("gemini", CHAT, as_json(candidate(inline(HUGE), inline(OTHER)))),
    "events": ("openai", IMAGES, as_events({**COMPLETED, "b64_json": HUGE}, COMPLETED)),
    "a chat's events": ("openai", CHAT, as_events(delta(images=[part(DATA + HUGE)]), delta(images=[part()]))),
}


@pytest.mark.parametrize("name", LARGE_ANSWERS)
def test_a_large_answer_that_breaks_off_between_two_images_can_be_read(bench: Bench, name: str) -> None:
    dialect, path, whole = LARGE_ANSWERS[name]
    answer, entry = bench.send(dialect, path, Cut(body=whole[: whole.index(HUGE.encode()) + len(HUGE) + 4]))
    assert answer.status == 200, answer.body
    assert images_delivered(answer, path) == [HUGE]
    assert (entry["outcome"], entry["images"], entry["charged"]) == ("truncated", 1, IMAGE_PRICE)


@pytest.mark.parametrize(
    ("dialect", "path", "body"),
    [
        ("openai", IMAGES, as_json({"created": 1, "data": [{"b64_json": HUGE}], **NO_MORE})),
        ("openai", IMAGES, as_events({**COMPLETED, "b64_json": HUGE}, NO_MORE)),
        ("openrouter", IMAGES, as_json({**message(images=[part(DATA + HUGE)]), **NO_MORE})),
        ("gemini", IMAGES, as_json({**candidate(inline(HUGE)), **NO_MORE})),
        ("gemini", IMAGES, as_json([candidate(inline(HUGE)), NO_MORE])),
        ("gemini", CHAT, as_json({**candidate(inline(HUGE)), **NO_MORE})),
        ("openrouter", CHAT, as_json({**message(images=[part(DATA + HUGE)]), **NO_MORE})),
        ("openai", CHAT, as_events(delta(images=[part(DATA + HUGE)]), NO_MORE)),
    ],
)
def test_a_large_answer_that_an_error_ends_between_two_images_can_be_read(
    bench: Bench, dialect: str, path: str, body: bytes
) -> None:
    answer, entry = bench.send(dialect, path, Reply(body=body))
    assert answer.status == 200, answer.body
    assert images_delivered(answer, path) == [HUGE]
    assert (entry["outcome"], entry["images"], entry["charged"]) == ("truncated", 1, IMAGE_PRICE)


@pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
def test_an_error_after_the_finished_image_does_not_take_it_back(bench: Bench, *, stream: bool) -> None:
    error = {"type": "error", "error": {"code": "server_error", "message": "no"}}
    answer, entry = bench.send("openai", IMAGES, Reply(body=as_events(COMPLETED, error)), stream=stream)
    assert answer.status == 200
    assert (entry["images"], entry["charged"]) == (1, IMAGE_PRICE)
    first = next(events_of(answer.body)) if stream else answer.json["data"][0]
    assert first["b64_json"] == PNG


@pytest.mark.parametrize("path", [IMAGES, CHAT])
@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
@pytest.mark.parametrize(
    "body",
    [
        b'event: error\ndata: {"code":"moderation_blocked","message":"Not that."}\n\n',
        b'data: {"type":"error","code":"moderation_blocked","message":"Not that."}\n\n',
        b'{"type":"error","error":{"code":"moderation_blocked","message":"Not that."}}',
    ],
)
def test_an_error_is_known_by_the_event_or_by_its_type(
    bench: Bench, dialect: str, path: str, body: bytes, *, stream: bool
) -> None:
    answer, entry = bench.send(dialect, path, Reply(body=body), stream=stream)
    assert answer.status == 400, answer.body
    assert (answer.json["error"]["code"], answer.json["error"]["message"]) == ("moderation_blocked", "Not that.")
    assert (entry["outcome"], entry["charged"]) == ("refused", 0)


@pytest.mark.parametrize("path", [IMAGES, CHAT])
@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    ("document", "status", "message"),
    [
        ({"code": "DataInspectionFailed", "message": "Not that.", "request_id": "1"}, 400, "Not that."),
        ({"code": "Throttling.RateQuota", "message": "Too fast."}, 429, "rate-limiting"),
        ({"code": "Arrearage", "message": "In good standing?"}, 502, "does not serve this gateway"),
        ({"detail": "Something broke."}, 502, "Something broke."),
        ({"base_resp": {"status_code": 2013, "status_msg": "invalid params"}}, 502, "invalid params"),
        (
            {"success": False, "errors": [{"code": 3040, "message": "Out of room."}], "result": None},
            502,
            "Out of room.",
        ),
    ],
)
def test_an_error_that_nothing_calls_one_is_told_at_every_endpoint(
    bench: Bench, dialect: str, path: str, document: dict[str, Any], status: int, message: str
) -> None:
    answer, entry = bench.send(dialect, path, Reply(body=as_json(document)))
    assert answer.status == status, answer.body
    assert message in answer.json["error"]["message"]
    assert (entry["images"], entry["charged"]) == (0, 0)
    assert status != 502 or answer.headers["x-should-retry"] == "false"


# --- No image, and why -----------------------------------------------------------------------------------------------

REASONS: dict[str, tuple[dict[str, Any], str]] = {
    "a text": (message(content="I cannot draw that."), "I cannot draw that."),
    "a refusal": (message(content=None, refusal="Not this one."), "Not this one."),
    "a part": (candidate({"text": "I would rather not."}), "I would rather not."),
    "a blocked prompt": ({"promptFeedback": {"blockReason": "SAFETY", "blockReasonMessage": "unsafe"}}, "unsafe"),
    "a finish": ({"candidates": [{"finishReason": "IMAGE_SAFETY", "finishMessage": "It broke rules."}]}, "broke rules"),
    "a filter": ({"predictions": [{"raiFilteredReason": "Filtered by policy 29310472."}]}, "Filtered by policy"),
    "an image's own error": ({"data": [{"error": {"code": "DataInspectionFailed", "message": "Not that."}}]}, "Not th"),
    "reasons in a list": ({"images": [], "finish_reasons": ["Filter reason: prompt"]}, "Filter reason: prompt"),
    "beside data": ({"created": 1, "data": [], "text": "Nothing came of it."}, "Nothing came of it."),
}


@pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(("document", "why"), REASONS.values(), ids=REASONS)
def test_an_answer_without_an_image_says_why(
    bench: Bench, dialect: str, document: dict[str, Any], why: str, *, stream: bool
) -> None:
    answer, entry = bench.send(dialect, IMAGES, Reply(body=as_json(document)), stream=stream)
    assert answer.status == 400
    assert why in answer.json["error"]["message"]
    assert entry["outcome"] in ("empty", "refused")
    assert (entry["images"], entry["charged"]) == (0, 0)


def test_data_without_an_image_and_without_a_word_stays_what_it_is(bench: Bench) -> None:
    answer, entry = bench.send("openai", IMAGES, Reply(body=as_json({"created": 7, "data": []})))
    assert (answer.status, answer.json) == (200, {"created": 7, "data": []})
    assert (entry["outcome"], entry["charged"]) == ("empty", 0)


# --- What strict clients need ----------------------------------------------------------------------------------------


def test_every_member_that_the_schema_requires_is_in_an_event(bench: Bench) -> None:
    for dialect in DIALECTS:
        body = as_events(EVENTS[dialect, IMAGES])
        answer, _ = bench.send(dialect, IMAGES, Reply(body=body), stream=True, size="1024x1024")
        (event,) = events_of(answer.body)
        assert event.keys() >= {
            "type", "b64_json", "created_at", "size", "quality", "background", "output_format", "usage",
        }  # fmt: skip
        assert event["size"] == "1024x1024"
        assert event["usage"] == {
            "total_tokens": 0, "input_tokens": 0, "output_tokens": 0,
            "input_tokens_details": {"text_tokens": 0, "image_tokens": 0},
        }  # fmt: skip


def test_a_thoughts_signature_goes_to_the_client(bench: Bench) -> None:
    document = candidate({"text": "here", "thoughtSignature": "c2ln"}, inline(thoughtSignature="aW1n"))
    answer, _ = bench.send("gemini", CHAT, Reply(body=as_json(document)))
    said = answer.json["choices"][0]["message"]
    assert said["extra_content"] == {"google": {"thought_signature": "c2ln"}}
    assert said["images"][0]["extra_content"] == {"google": {"thought_signature": "aW1n"}}
    answer, _ = bench.send("gemini", CHAT, Reply(body=as_events(document)), stream=True)
    deltas = [event["choices"][0]["delta"] for event in events_of(answer.body) if event["choices"]]
    assert deltas[0]["extra_content"] == {"google": {"thought_signature": "c2ln"}}
    assert deltas[1]["images"][0]["extra_content"] == {"google": {"thought_signature": "aW1n"}}


def test_extra_content_of_a_message_passes(bench: Bench) -> None:
    extra = {"google": {"thought_signature": "c2ln"}}
    answer, _ = bench.send("openai", CHAT, Reply(body=as_json(message(content="x", extra_content=extra))))
    assert answer.json["choices"][0]["message"]["extra_content"] == extra
    assert orjson.loads(answer.body)["choices"][0]["message"]["content"] == "x"


@pytest.mark.parametrize("dialect", ["openai", "openrouter"])
def test_extra_content_in_events_reaches_a_client_that_asked_for_json(bench: Bench, dialect: str) -> None:
    of_image, of_message = ({"google": {"thought_signature": text}} for text in ("aW1n", "c2ln"))
    chunks = [delta(content="x"), delta(images=[{**part(), "extra_content": of_image}], extra_content=of_message)]
    body = as_events(*chunks, {"choices": [], "usage": {"total_tokens": 9}}) + b"data: [DONE]\n\n"
    answer, entry = bench.send(dialect, CHAT, Reply(body=body))
    said = answer.json["choices"][0]["message"]
    assert (said["content"], said["extra_content"]) == ("x", of_message)
    assert [one["extra_content"] for one in said["images"]] == [of_image]
    assert (entry["outcome"], entry["images"], entry["charged"]) == ("delivered", 1, IMAGE_PRICE)
