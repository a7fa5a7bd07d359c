"""Vercel's AI SDK with OpenAI's and OpenRouter's providers, against a gateway: one script tells what it got."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.clients.conftest import IMAGE_PRICE, charges
from tests.support.gateways import RunningGateway
from tests.support.node import install, told_by

PNG = ["image/png", "\x89PNG"]


@pytest.mark.timeout(180)
def test_the_ai_sdk_draws_edits_and_chats(gateway: RunningGateway, tmp_path: Path) -> None:
    install(tmp_path)
    key = gateway.make_key()
    told = told_by(tmp_path, "clients.mjs", LIGHTMETER_URL=gateway.url, LIGHTMETER_KEY=key)
    assert told["images"] == {"files": [PNG, PNG], "warnings": []}
    assert told["edited"] == {"files": [PNG], "warnings": []}
    assert told["said"]["files"] == [PNG]
    assert told["streamed"]["files"] == [PNG]
    assert told["said"]["text"] == told["streamed"]["text"] != ""
    assert told["streamed"]["reason"] == "stop"
    assert (told["unknown"]["status"], told["unknown"]["retryable"]) == (404, False)
    assert "does not exist" in told["unknown"]["message"]
    assert charges(gateway, key) == [("delivered", 2, 2 * IMAGE_PRICE)] + [("delivered", 1, IMAGE_PRICE)] * 3
