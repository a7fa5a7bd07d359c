"""What people report of gateways, clients and providers, input by input: what each costs, and what the client gets.

``field_cases.json`` names every one of these inputs in plain words, with the tests that cover it; where it ``differs``
from what was wished for, it says why. Inputs that are one answer of a provider are sent here as they are.
"""

from __future__ import annotations

import ast
import base64
import gzip
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.domain.answer_samples import events_of
from tests.support.dialects import CHAT, DRAWN, IMAGES, PNG, Stage, body_of, stage
from tests.support.gateways import Answer, ask
from tests.support.scripted_provider import Reply

ROOT = Path(__file__).parents[2]
CASES = json.loads(Path(__file__).with_name("field_cases.json").read_text())
CASES_COUNT = 147
LINK = "https://images.example/1.png"
DATA = "data:image/png;base64,"
OTHER = base64.b64encode(base64.b64decode(PNG)[::-1]).decode()
EVENT_STREAM = {"Content-Type": "text/event-stream"}
DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True)
class Sent:
    """What a provider answers, and what comes of it: ``images`` are delivered and charged, of ``units`` in all."""

    model: str
    path: str
    reply: Reply
    status: int = 200
    images: tuple[str, ...] = (PNG,)
    units: int = 5_000
    outcome: str = "delivered"
    told: str = ""
    fields: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    param: str | None = None


@dataclass(frozen=True)
class Cut(Reply):
    """An answer whose length promises more than comes."""

    @property
    def length(self) -> int:
        return len(self.body) + 7


def drawn(**more: Any) -> Reply:
    return Reply(body=orjson.dumps({"created": 1, "data": [{"b64_json": PNG}], **more}))


def events(*documents: object, end: bytes = b"") -> bytes:
    return b"".join(b"data: %b\n\n" % orjson.dumps(document) for document in documents) + end


def part(address: str = DATA + PNG) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": address}}


def message(**members: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "message": {"role": "assistant", **members}, "finish_reason": "stop"}]}


def says(**members: Any) -> Reply:
    return Reply(body=orjson.dumps({**message(**members), "usage": {"prompt_tokens": 10, "completion_tokens": 20}}))


def delta(**members: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"role": "assistant", **members}, "finish_reason": "stop"}]}


def candidate(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"candidates": [{"content": {"parts": list(parts), "role": "model"}, "finishReason": "STOP"}]}


def inline(data: str = PNG, **more: Any) -> dict[str, Any]:
    return {"inlineData": {"mimeType": "image/png", "data": data}, **more}


def zipped(reply: bytes, name: str = "gzip", *, status: int = 200, kind: str = "application/json") -> Reply:
    return Reply(status, {"Content-Encoding": name, "Content-Type": kind}, gzip.compress(reply))


def refuses(status: int, body: object, **headers: str) -> Reply:
    return Reply(status, headers, body if isinstance(body, bytes) else orjson.dumps(body))


def refused(reply: Reply, told: str = "", *, model: str = "openai", path: str = IMAGES, **more: Any) -> Sent:
    """A provider's error, which costs nothing."""
    expected: dict[str, Any] = {"status": 400, "images": (), "units": 0, "outcome": "refused", "told": told, **more}
    return Sent(model, path, reply, **expected)


COMPLETED = {"type": "image_generation.completed", "b64_json": PNG, "created_at": 1}
CREDIT: dict[str, Any] = {"status": 502, "outcome": "failed", "headers": {"x-should-retry": "false"}}
DRAWN_MAYBE: dict[str, Any] = {"outcome": "failed", "headers": {"x-should-retry": "false"}}
GOOGLES = "type.googleapis.com/google.rpc."
NO_IMAGE: dict[str, Any] = {"outcome": "empty"}
TEXT_ANSWER: dict[str, Any] = {"images": (), "units": 30}
MODERATED = {"message": "moderation", "code": "moderation_blocked"}


def error_in_a_200(code: int) -> Reply:
    return Reply(body=orjson.dumps({"error": {"code": code, "message": "Provider returned error"}}))


def chat_text(text: str, modalities: list[str] | None) -> Sent:
    return Sent("openai", CHAT, says(content=text), fields={"modalities": modalities}, **TEXT_ANSWER)


def bom(model: str) -> Sent:
    return Sent(model, IMAGES, Reply(body=b"\xef\xbb\xbf" + DRAWN[model]))


def as_events(model: str, end: bytes) -> Sent:
    return Sent(model, IMAGES, Reply(body=DRAWN[model] + end, headers=EVENT_STREAM))


TWO = orjson.dumps({"created": 1, "data": [{"b64_json": PNG}, {"b64_json": OTHER}]})
CHUNKS = events(delta(content="", images=[part()]), end=DONE)

SENT: dict[str, Sent] = {
    "gzip": Sent("openai", IMAGES, zipped(DRAWN["openai"])),
    "x-gzip": Sent("openai", IMAGES, zipped(DRAWN["openai"], "x-gzip")),
    "gzip, gemini": Sent("gemini", IMAGES, zipped(DRAWN["gemini"])),
    "gzip, refusal": refused(zipped(b'{"error":{"message":"bad","code":"nope"}}', status=400), "bad"),
    "gzip, stream": Sent(
        "openai", IMAGES, zipped(events(COMPLETED), kind="text/event-stream"), fields={"stream": True}
    ),
    "header of 9 kB": Sent("openai", IMAGES, Reply(body=DRAWN["openai"], headers={"X-Csp": "a" * 9_000})),
    "header of 34 kB": Sent("openai", IMAGES, Reply(body=DRAWN["openai"], headers={"Link": "a" * 34_000})),
    "524": refused(Reply(524, {}, b"<html>"), status=502, **DRAWN_MAYBE),
    "504": refused(Reply(504, {}, b"<html>"), status=504, **DRAWN_MAYBE),
    "images for data": Sent("openai", IMAGES, Reply(body=orjson.dumps({"images": [{"url": LINK}]})), images=(LINK,)),
    "unreadable": refused(Reply(body=b"<html>not an answer</html>"), status=502, **DRAWN_MAYBE),
    **{f"BOM, {model}": bom(model) for model in DRAWN},
    **{f"JSON as events, {model}": as_events(model, b"") for model in DRAWN},
    **{f"JSON as events and [DONE], {model}": as_events(model, b"\n\n" + DONE) for model in DRAWN},
    "strings in images": Sent("openrouter", CHAT, says(content="", images=[DATA + PNG])),
    "output_image": Sent("openrouter", CHAT, says(content=[{"type": "output_image", "image_url": DATA + PNG}])),
    "multi_mod_content": Sent(
        "openrouter", CHAT,
        says(content="", multi_mod_content=[{"inline_data": {"mime_type": "image/png", "data": PNG}}]),
    ),
    "chat, Markdown https": Sent("openrouter", CHAT, says(content=f"![a cube]({LINK})"), images=(LINK,)),
    "chat, HTML https": Sent("openrouter", CHAT, says(content=f'<img src="{LINK}">'), images=(LINK,)),
    "chunks as JSON": Sent("openai", CHAT, Reply(body=CHUNKS)),
    "chunks as text": Sent("openai", CHAT, Reply(body=CHUNKS, headers={"Content-Type": "text/plain"})),
    "chunks as nothing": Sent("openai", CHAT, Reply(body=CHUNKS, headers={"Content-Type": ""})),
    "chat, JSON as events": Sent("openai", CHAT, Reply(body=says(images=[part()]).body, headers=EVENT_STREAM)),
    "chat, JSON as events and [DONE]": Sent(
        "openai", CHAT, Reply(body=says(images=[part()]).body + b"\n\n" + DONE, headers=EVENT_STREAM)
    ),
    "text, HTML with a GIF": chat_text('<img src="data:image/gif;base64,R0lGODlhAQABAAAAACw=">', None),
    "text, Markdown how-to": chat_text(f"Write ![alt]({LINK})", None),
    "text asked for, Markdown how-to": chat_text(f"Write ![alt]({LINK})", ["text"]),
    "text asked for, a picture quoted": chat_text(f"You sent ![a]({DATA}{PNG})", ["text"]),
    "usage without a total": chat_text("no picture", ["text"]),
    **{f"{code} in a 200, chat": refused(
        error_in_a_200(code), model="openrouter", path=CHAT, status=status, outcome=outcome)
       for code, status, outcome in ((429, 429, "refused"), (403, 400, "refused"), (408, 504, "failed"),
                                     (400, 400, "refused"))},
    "403 in a 200, images": refused(
        Reply(body=orjson.dumps({"error": {"code": 403, "message": "flagged", "metadata": {"reasons": ["x"]}}})),
        "flagged", model="openrouter",
    ),
    "extra_content": Sent("openai", CHAT, says(content="x", images=[part()], extra_content={"google": {"a": "b"}})),
    "openrouter, text only": refused(says(content="I cannot draw"), "I cannot draw", model="openrouter", **NO_IMAGE),
    "openrouter, refusal": refused(says(refusal="I will not"), "I will not", model="openrouter", **NO_IMAGE),
    "gemini, STOP and text": refused(
        Reply(body=orjson.dumps(candidate({"text": "not today"}))), "not today", model="gemini", **NO_IMAGE
    ),
    "openai, data [] and a text": refused(
        Reply(body=orjson.dumps({"created": 1, "data": [], "text": "not today"})), "not today", **NO_IMAGE
    ),
    "predictions": Sent(
        "gemini", IMAGES,
        Reply(body=orjson.dumps({"predictions": [{"bytesBase64Encoded": PNG, "mimeType": "image/png"}]})),
    ),
    "openrouter, Markdown": Sent("openrouter", IMAGES, says(content=f"Here: ![a cube]({DATA}{PNG})")),
    "openrouter, a data: address": Sent("openrouter", IMAGES, says(content=DATA + PNG)),
    "openrouter, Markdown https": Sent("openrouter", IMAGES, says(content=f"![a]({LINK})"), images=(LINK,)),
    "gemini, a draft first": Sent(
        "gemini", IMAGES, Reply(body=orjson.dumps(candidate(inline(OTHER, thought=True), inline())))
    ),
    **{f"param {name}": refused(refuses(400, {"error": {"message": "bad", "param": name, "code": "invalid_value"}}),
                                "bad", param=name)
       for name in ("image", "image[0]", "mask", "input_fidelity", "messages")},
    "error as array": refused(refuses(400, [{"error": {"message": "bad"}}]), "bad"),
    "error as detail": refused(refuses(400, {"detail": "Invalid size"}), "Invalid size"),
    "error as detail list": refused(
        refuses(422, {"detail": [{"loc": ["body", "size"], "msg": "not a size", "type": "value_error"}]}),
        "size", status=422, param="size",
    ),
    "error as message": refused(refuses(400, {"message": "size not supported"}), "size not supported"),
    "error as errors": refused(refuses(400, {"errors": [MODERATED]}), "moderation"),
    "error as text": refused(refuses(400, b"Bad prompt"), "Bad prompt"),
    "Google's reason": refused(
        refuses(400, {"error": {"code": 400, "message": "Request contains an invalid argument.",
                                "status": "INVALID_ARGUMENT",
                                "details": [{"@type": f"{GOOGLES}ErrorInfo", "reason": "IMAGE_TOO_ODD"}]}}),
        "IMAGE_TOO_ODD", model="gemini",
    ),
    **{f"400 {code}": refused(refuses(400, {"error": {"message": "Check your billing.", "code": code}}), **CREDIT)
       for code in ("billing_hard_limit_reached", "billing_not_active", "account_deactivated")},
    "429 insufficient_quota": refused(
        refuses(429, {"error": {"message": "Check your plan.", "type": "insufficient_quota"}}), **CREDIT
    ),
    **{f"gemini, {said}": refused(
        refuses(400, {"error": {"code": 400, "message": said, "status": "FAILED_PRECONDITION"}}),
        model="gemini", **CREDIT)
       for said in ("Gemini API free tier is not available in your country. Please enable billing on your project.",
                    "User location is not supported for the API use.")},
    **{f"{status} with Retry-After": refused(
        refuses(status, {"error": {"message": "busy"}}, **{"Retry-After": "30"}),
        status=502, outcome="failed", headers={"Retry-After": "30"})
       for status in (503, 529, 500)},
    "Retry-After 20.7": refused(
        refuses(429, {"error": {"message": "busy"}}, **{"Retry-After": "20.7"}),
        status=429, headers={"Retry-After": "21"},
    ),
    "retry-after-ms": refused(
        refuses(429, {"error": {"message": "busy"}}, **{"retry-after-ms": "25000"}),
        status=429, headers={"Retry-After": "25"},
    ),
    "data: in b64_json": Sent("openai", IMAGES, Reply(body=orjson.dumps({"data": [{"b64_json": DATA + PNG}]}))),
    "created as text": Sent("openai", IMAGES, drawn(created="2026-11-25T00:00:00Z")),
    "created missing": Sent("openai", IMAGES, Reply(body=orjson.dumps({"data": [{"url": LINK}]})), images=(LINK,)),
    "an error after the picture": Sent(
        "openai", IMAGES, Reply(body=events(COMPLETED, {"type": "error", "error": {"message": "late"}})),
        outcome="truncated",
    ),
    "the same event twice": Sent(
        "openai", IMAGES, Reply(body=events(COMPLETED, COMPLETED, end=DONE), headers=EVENT_STREAM),
        fields={"stream": True},
    ),
    "the same again without usage": Sent(
        "openai", IMAGES, Reply(body=events({**COMPLETED, "usage": {"total_tokens": 7}}, COMPLETED)),
        fields={"stream": True},
    ),
    "the same again without usage, JSON asked": Sent(
        "openai", IMAGES, Reply(body=events({**COMPLETED, "usage": {"total_tokens": 7}}, COMPLETED))
    ),
    "the same in images and in content": Sent(
        "openrouter", IMAGES, says(content=f"![a]({DATA}{PNG})", images=[part()])
    ),
    "a flat error event, JSON asked": refused(
        Reply(body=events({"type": "error", "message": "no people", "code": "moderation_blocked"})), "no people",
    ),
    "cut in the second picture": Sent(
        "openai", IMAGES, Cut(body=TWO[: TWO.index(OTHER.encode()) + 20]), outcome="truncated"
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def play(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with stage(tmp_path_factory.mktemp("field-cases")) as made:
        yield made


def delivered(answer: Answer) -> list[str]:
    """The images that the client has: addresses, and base64 without what may stand before it."""
    documents = [answer.json] if answer.body.startswith(b"{") else list(events_of(answer.body))
    found: list[str] = []
    for document in documents:
        entries = document.get("data", [document] if "b64_json" in document else [])
        found += [entry.get("b64_json") or entry["url"] for entry in entries]
        for choice in document.get("choices", ()):
            found += re.findall(r"data:image/png;base64,[A-Za-z0-9+/=]+|https://images[^\"\\)]+", json.dumps(choice))
            found += [image["inline_data"]["data"] for image in choice["message"].get("multi_mod_content", ())]
    return [image.removeprefix(DATA) for image in found]


@pytest.mark.parametrize("sent", SENT.values(), ids=SENT)
def test_what_a_provider_sends_comes_to_this(play: Stage, sent: Sent) -> None:
    play.reply(sent.reply)
    key = play.gateway.make_key(1_000_000)
    body = {**body_of(sent.path, sent.model), **sent.fields}
    answer = ask("POST", play.gateway.url + sent.path, key=key, body=body)
    assert (answer.status, play.provider.received) == (sent.status, 1), answer.body
    assert {name: answer.headers.get(name) for name in sent.headers} == sent.headers
    (entry,) = play.gateway.ledger(key)
    assert (entry["outcome"], entry["images"], entry["charged"]) == (sent.outcome, len(sent.images), sent.units)
    play.gateway.check_books(key)
    if sent.status == 200 and sent.images:
        assert delivered(answer) == list(sent.images)
        assert answer.body[:1] != b"{" or type(answer.json["created"]) is int
    elif sent.status != 200:
        error = answer.json["error"]
        assert error.keys() == {"message", "type", "param", "code"}
        assert sent.told in error["message"]
        assert error["param"] == sent.param


# --- The list --------------------------------------------------------------------------------------------------------


def test_every_case_names_a_test_that_is_there() -> None:
    named = {test for case in CASES for test in case["tests"]}
    there = {f"{path}::{name}" for path in {test.partition("::")[0] for test in named} for name in names_in(path)}
    assert {test.partition("[")[0] for test in named} - there == set()
    assert {test.partition("[")[2].removesuffix("]") for test in named} - {""} == set(SENT)


def test_every_case_is_told_in_words_and_has_a_test() -> None:
    assert len(CASES) == len({(case["case"], case["what"]) for case in CASES}) == CASES_COUNT
    for case in CASES:
        assert case.keys() - {"differs"} == {"case", "what", "tests"}
        assert re.fullmatch(r"[A-Z]\d\d", case["case"])
        assert case["what"].strip()
        assert case["tests"]


def names_in(path: str) -> set[str]:
    """The names of a file's test functions, nothing where there is no such file."""
    file = ROOT / path
    tree = ast.parse(file.read_text() if file.is_file() else "")
    functions = [node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    return {name for name in functions if name.startswith("test_")}
