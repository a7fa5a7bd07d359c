"""LiteLLM as a client, and LangChain, against a gateway: one program asks, and tells what it was given."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.clients.conftest import IMAGE_PRICE, charges
from tests.support.gateways import RunningGateway
from tests.support.locked import python_with

FOLDER = Path(__file__).parent
PROGRAM_S = 90
PNG_ADDRESS = "data:image/png;base64,"


# The packages are 74, of 430 MB: most of a minute where they are not had yet.
@pytest.mark.timeout(480)
def test_litellm_and_langchain_draw_edit_and_chat(gateway: RunningGateway, cache: Path) -> None:
    python = python_with(FOLDER / "requirements.lock", cache)
    key = gateway.make_key()
    ended = subprocess.run(
        [str(python), str(FOLDER / "python_clients.py")],
        env={
            **os.environ,
            "LIGHTMETER_URL": gateway.url,
            "LIGHTMETER_KEY": key,
            # It would ask a host outside for its prices.
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        },
        capture_output=True,
        text=True,
        timeout=PROGRAM_S,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-3_000:]
    told = json.loads(ended.stdout[ended.stdout.rindex('{"litellm"') :])
    litellm, langchain = told["litellm"], told["langchain"]
    assert "does not exist" in litellm.pop("unknown")
    assert litellm == {
        "images": ["PNG", "PNG"], "edited": ["PNG"], "said": [PNG_ADDRESS], "streamed": [PNG_ADDRESS]
    }  # fmt: skip
    assert langchain["said"] == langchain["streamed"] != ""
    assert langchain["total_tokens"] > 0
    assert charges(gateway, key) == [("delivered", 2, 2 * IMAGE_PRICE)] + [("delivered", 1, IMAGE_PRICE)] * 5
