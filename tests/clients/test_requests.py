"""The very requests that other clients send, as their sources have them: each is understood, and charged rightly.

openai-go is among them because building it takes more than a minute of a processor's time.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.clients.conftest import IMAGE_PRICE, charges
from tests.domain.answer_samples import events_of
from tests.support.forms import FORM, PNG, form, part
from tests.support.gateways import Answer, RunningGateway, ask

REQUESTS: list[dict[str, Any]] = json.loads((Path(__file__).parent / "requests.json").read_text())


@pytest.mark.parametrize("sent", REQUESTS, ids=[f"{sent['client']}: {sent['what']}" for sent in REQUESTS])
def test_a_request_of_another_client(gateway: RunningGateway, sent: dict[str, Any]) -> None:
    key = gateway.make_key()
    headers = dict(sent.get("headers", {}))
    if "json" in sent:
        body = json.dumps(sent["json"]).encode()
    else:
        texts = [part(name, value) for name, value in sent["form"]]
        files = [part(name, PNG, file_name=file_name, kind=kind) for name, file_name, kind in sent["files"]]
        # openai-go and n8n send files first.
        body = form(*files, *texts) if sent["client"] in ("openai-go", "n8n") else form(*texts, *files)
        headers["Content-Type"] = FORM
    by_name = sent.get("key", "authorization") != "authorization"
    if by_name:
        headers[sent["key"]] = key
    answer = ask("POST", gateway.url + sent["path"], key=None if by_name else key, body=body, headers=headers)
    assert answer.status == 200, answer.body
    assert images_in(answer) == sent["images"]
    ends = ("delivered", sent["images"], IMAGE_PRICE * sent["images"]) if sent["images"] else None
    assert charges(gateway, key) == [ends or ("delivered", 0, sent["text_tokens"])]


def images_in(answer: Answer) -> int:
    """How many finished images the client has."""
    is_stream = answer.headers["Content-Type"].startswith("text/event-stream")
    found = 0
    for document in events_of(answer.body) if is_stream else [answer.json]:
        found += len(document.get("data", ())) + document.get("type", "").endswith(".completed")
        for choice in document.get("choices", ()):
            found += len((choice.get("message") or choice["delta"]).get("images", ()))
    return found


def test_every_request_says_where_it_is_from() -> None:
    assert {sent["client"] for sent in REQUESTS} >= {"Open WebUI", "LibreChat", "LobeChat", "Dify", "n8n", "openai-go"}
    assert all(sent["source"].partition("/")[2] for sent in REQUESTS)
