"""The key in other headers than ``Authorization``: it opens the same, and goes no further."""

from __future__ import annotations

import json
from collections.abc import Mapping

import openai
import pytest
from openai import AzureOpenAI, OpenAI

from proxy.domain.headers import KEY_HEADERS
from tests.support.forms import FORM, PNG, form_of
from tests.support.gateways import RunningGateway, SampleProvider, ask
from tests.support.raw_http import exchange

MODEL = "acme/image-1"
BODY = {"model": MODEL, "prompt": "a cube"}
FOREIGN = "sk-canary-of-another-service-7391"


def azure(gateway: RunningGateway, key: str) -> AzureOpenAI:
    return AzureOpenAI(base_url=f"{gateway.url}/v1", api_key=key, api_version="2025-04-01-preview", max_retries=0)


def test_the_client_for_azure(gateway: RunningGateway) -> None:
    key = gateway.make_key(100_000)
    with azure(gateway, key) as sdk:
        assert MODEL in [model.id for model in sdk.models.list().data]
        # Given as an argument, this client would write the model into the path.
        images = sdk.images.generate(prompt="a cube", extra_body={"model": MODEL})
    assert images.data is not None
    assert len(images.data) == 1
    assert gateway.quota(key)["posted"] == 5_000
    with azure(gateway, key[:-1]) as sdk, pytest.raises(openai.AuthenticationError):
        sdk.models.list()


@pytest.mark.parametrize("name", KEY_HEADERS)
def test_the_plain_client_with_the_key_in_a_header_more(gateway: RunningGateway, name: str) -> None:
    key, other = gateway.make_key(100_000), gateway.make_key(100_000)
    with OpenAI(base_url=f"{gateway.url}/v1", api_key=key, default_headers={name: key}, max_retries=0) as sdk:
        sdk.images.generate(model=MODEL, prompt="a cube")
    assert gateway.quota(key)["posted"] == 5_000
    with OpenAI(base_url=f"{gateway.url}/v1", api_key=key, default_headers={name: other}, max_retries=0) as sdk:
        with pytest.raises(openai.AuthenticationError, match="different keys"):
            sdk.images.generate(model=MODEL, prompt="a cube")
        with pytest.raises(openai.AuthenticationError, match="different keys"):
            sdk.models.list()
    assert [gateway.quota(each)["posted"] for each in (key, other)] == [5_000, 0]


@pytest.mark.parametrize("name", KEY_HEADERS)
def test_every_route_takes_it(gateway: RunningGateway, name: str) -> None:
    key = gateway.make_key(100_000)
    large = json.dumps(BODY).encode() + b" " * 70_000
    chat = {"model": MODEL, "modalities": ["image"], "messages": [{"role": "user", "content": "a cube"}]}
    edit = form_of([("model", MODEL), ("prompt", "a cube"), ("image", PNG)])
    for method, path, body, kind in (
        ("GET", "/v1/models", None, "application/json"),
        ("GET", f"/v1/models/{MODEL}", None, "application/json"),
        ("GET", "/v1/key", None, "application/json"),
        ("POST", "/v1/images/generations", json.dumps(BODY).encode(), "application/json"),
        ("POST", "/v1/images/generations", large, "application/json"),
        ("POST", "/v1/images/edits", edit, FORM),
        ("POST", "/v1/chat/completions", json.dumps(chat).encode(), "application/json"),
    ):
        answer = ask(method, gateway.url + path, body=body, headers={name: key, "Content-Type": kind})
        assert answer.status == 200, (path, answer.body)
        refused = ask(method, gateway.url + path, body=body, headers={name: key[:-1], "Content-Type": kind})
        assert (refused.status, refused.json["error"]["code"]) == (401, "invalid_api_key"), path
    gateway.check_books(key)


def test_no_key_in_any_header_reaches_the_provider_or_the_log(
    gateway: RunningGateway, quiet_provider: SampleProvider
) -> None:
    key = gateway.make_key(100_000)
    sent: list[tuple[Mapping[str, str], int]] = [
        ({"Authorization": f"Bearer {key}", "api-key": key, "x-api-key": key}, 200),
        ({"x-api-key": key}, 200),
        ({"api-key": FOREIGN, "x-api-key": key}, 401),
        ({"api-key": FOREIGN}, 401),
        ({"Authorization": f"Bearer {FOREIGN}", "x-api-key": FOREIGN}, 401),
    ]
    for headers, status in sent:
        answer = ask("POST", f"{gateway.url}/v1/images/generations", body=BODY, headers=headers)
        assert answer.status == status
        gateway.server.wait_for_output(answer.headers["x-request-id"])
        assert FOREIGN not in answer.body.decode()
        assert key not in answer.body.decode()
    # Also where the request is none: the header that is malformed stands beside them.
    for name in KEY_HEADERS:
        lines = ("GET /v1/models HTTP/1.1", "Host: x", f"{name}: {FOREIGN}", f"{name}: {key}\0", "", "")
        (refused,) = exchange(gateway.url, "\r\n".join(lines).encode()).answers
        assert refused.status == 400
        gateway.server.wait_for_output(refused.headers["x-request-id"])
        assert FOREIGN.encode() not in refused.body
    received = json.dumps(quiet_provider.requests())
    assert len(quiet_provider.requests()) == 2
    names = {name for request in quiet_provider.requests() for name, _ in request["headers"]}
    assert not names & set(KEY_HEADERS)
    for secret in (key, FOREIGN):
        assert secret not in received
        assert secret not in gateway.server.output
