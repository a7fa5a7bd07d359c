"""Stability's models on Amazon Bedrock: each request is signed, and one that is signed wrongly is let in nowhere."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import openai
import pytest

from proxy.domain.answers.holder import HELD_BYTES_LIMIT
from tests.support.amazon import IMAGE, PICTURE, Amazon
from tests.support.gateways import Answer, RunningGateway, ask, running_gateway
from tests.support.polling import until
from tests.support.processes import python_module
from tests.support.recording_provider import Answered, Asked, RecordingProvider, recording_provider

GENERATIONS, EDITS = "/v1/images/generations", "/v1/images/edits"
PRICE = 5_000
SECRET, SESSION = "made-up/secret+of-the-account", "made-up-session-token=="
KEYS = (
    'type = "aws", region = "us-west-2", access_key_env = "BEDROCK_ID", secret_key_env = "BEDROCK_SECRET", '
    'session_token_env = "BEDROCK_SESSION"'
)
MODELS = {
    "sd3": "stability.sd3-5-large-v1:0",
    "ultra": "us.stability.stable-image-ultra-v1:1",
    "inpaint": "us.stability.stable-image-inpaint-v1:0",
    "profile": "arn:aws:bedrock:us-west-2:123456789012:application-inference-profile/a b~c",
}
NOWHERE = {
    "AWS_CONFIG_FILE": "/nowhere/config",
    "AWS_SHARED_CREDENTIALS_FILE": "/nowhere/credentials",
    "AWS_EC2_METADATA_DISABLED": "true",
    "BEDROCK_ID": "AKIDEXAMPLE",
    "BEDROCK_SECRET": SECRET,
    "BEDROCK_SESSION": SESSION,
    "LIGHTMETER_LOGS_LEVEL": "debug",
}


@dataclass(frozen=True)
class Stage:
    folder: Path
    provider: RecordingProvider
    amazon: Amazon
    stack: ExitStack

    def toml(self, auth: str, folder: Path, more: str = "") -> str:
        models = "".join(
            f"""
[[models]]
id = "{name}"
provider = "bedrock"
upstream_model = "{model}"
token_multiplier = 1
unknown_parameters = "forward"
parameters = ["size", "output_format", "stream"]
"""
            for name, model in MODELS.items()
        )
        return f"""
[server]
listen = "127.0.0.1:0"
[admin]
listen = "127.0.0.1:0"
[store]
url = "embedded:{folder}/data"
{more}
[[providers]]
name = "bedrock"
dialect = "bedrock"
base_url = "{self.provider.url}"
auth = {{ {auth} }}
{models}"""

    def gateway(self, auth: str = KEYS, environment: Mapping[str, str] | None = None, more: str = "") -> RunningGateway:
        folder = self.folder / f"gateway-{len(list(self.folder.iterdir()))}"
        variables = {**NOWHERE, **(environment or {})}
        return self.stack.enter_context(running_gateway(folder, self.toml(auth, folder, more), variables))


@pytest.fixture(scope="module")
def play(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with ExitStack() as stack:
        provider = stack.enter_context(recording_provider())
        amazon = Amazon({"AKIDEXAMPLE": (SECRET, SESSION)})
        provider.answer = amazon.answer
        yield Stage(tmp_path_factory.mktemp("bedrock"), provider, amazon, stack)


@pytest.fixture(scope="module")
def gateway(play: Stage) -> RunningGateway:
    return play.gateway()


@pytest.fixture(autouse=True)
def _as_published(play: Stage) -> Iterator[None]:
    yield
    play.amazon.document, play.amazon.clock_is_off = IMAGE, timedelta()
    play.amazon.refused.clear()
    play.provider.answer = play.amazon.answer


def generate(gateway: RunningGateway, key: str, model: str = "sd3", **fields: Any) -> Answer:
    return ask("POST", gateway.url + GENERATIONS, key=key, body={"model": model, "prompt": "a cube", **fields})


def outcomes(gateway: RunningGateway, key: str) -> list[tuple[str, int, int]]:
    gateway.check_books(key)
    return [(entry["outcome"], entry["images"], entry["charged"]) for entry in gateway.ledger(key)]


@pytest.mark.parametrize(
    ("model", "target"),
    [
        ("sd3", "/model/stability.sd3-5-large-v1%3A0/invoke"),
        ("ultra", "/model/us.stability.stable-image-ultra-v1%3A1/invoke"),
        (
            "profile",
            "/model/arn%3Aaws%3Abedrock%3Aus-west-2%3A123456789012%3Aapplication-inference-profile%2Fa%20b~c/invoke",
        ),
    ],
)
def test_a_signature_is_right_whatever_the_model_is_called(
    play: Stage, gateway: RunningGateway, model: str, target: str
) -> None:
    key = gateway.make_key(10 * PRICE)
    answer = generate(gateway, key, model, size="1536x1024", seed=7)
    assert (answer.status, play.amazon.refused) == (200, [])
    assert answer.json["data"] == [{"b64_json": PICTURE}]
    asked = play.provider.last
    assert asked.target == target
    assert asked.headers["Accept"] == "application/json"
    assert asked.json == {"prompt": "a cube", "seed": 7, "aspect_ratio": "3:2"}
    assert outcomes(gateway, key) == [("delivered", 1, PRICE)]


def test_a_large_body_is_signed_too(play: Stage, gateway: RunningGateway) -> None:
    prompt = "ä" * 40_000
    assert generate(gateway, gateway.make_key(PRICE), prompt=prompt).status == 200
    assert play.provider.last.json["prompt"] == prompt
    assert play.amazon.refused == []


@pytest.mark.parametrize("length", [1, 3, 200_000, 3_000_001])
def test_an_edit_is_signed_over_its_file(play: Stage, gateway: RunningGateway, length: int) -> None:
    picture = (b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * (length // 256 + 1))[:length]
    key = gateway.make_key(10 * PRICE)
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=key, max_retries=0) as sdk:
        made = sdk.images.edit(model="sd3", prompt="greener", image=("a.png", picture))
    assert made.data
    assert made.data[0].b64_json == PICTURE
    assert play.amazon.refused == []
    body = play.provider.last.json
    assert base64.b64decode(body.pop("image")) == picture
    assert body == {"prompt": "greener", "mode": "image-to-image", "strength": 0.7}
    assert outcomes(gateway, key) == [("delivered", 1, PRICE)]


def test_a_mask_goes_beside_its_image(play: Stage, gateway: RunningGateway) -> None:
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.make_key(PRICE), max_retries=0) as sdk:
        made = sdk.images.edit(model="inpaint", prompt="p", image=("a.png", b"\x89PNG1"), mask=("m.png", b"\x89PNG2"))
    assert made.data
    assert play.amazon.refused == []
    assert play.provider.last.json == {"prompt": "p", "image": "iVBORzE=", "mask": "iVBORzI="}


def test_several_are_asked_for_and_signed_side_by_side(play: Stage, gateway: RunningGateway) -> None:
    key = gateway.make_key(10 * PRICE)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda number: generate(gateway, key, prompt=f"cube {number}"), range(8)))
    assert {answer.status for answer in answers} == {200}
    assert play.amazon.refused == []


@pytest.mark.parametrize("images", [None, [], [""], [PICTURE], ["iVBORw0KGgoA" + "A" * (2 * HELD_BYTES_LIMIT)]])
@pytest.mark.parametrize("stream", [False, True])
def test_what_was_filtered_is_neither_delivered_nor_charged(
    play: Stage, gateway: RunningGateway, images: list[str] | None, stream: bool
) -> None:
    listed = {} if images is None else {"images": images}
    play.amazon.document = {"finish_reasons": ["Filter reason: output image"], **listed}
    key = gateway.make_key(10 * PRICE)
    answer = generate(gateway, key, stream=stream)
    assert (answer.status, answer.json["error"]["code"]) == (400, "content_filtered")
    assert "Filter reason: output image" in answer.json["error"]["message"]
    assert outcomes(gateway, key) == [("empty", 0, 0)]


def test_an_inference_error_is_the_providers(play: Stage, gateway: RunningGateway) -> None:
    play.amazon.document = {"finish_reasons": ["Inference error"]}
    key = gateway.make_key(10 * PRICE)
    assert generate(gateway, key).status == 502
    assert [charged for _, _, charged in outcomes(gateway, key)] == [0]


@pytest.mark.parametrize(
    ("status", "kind", "wanted"),
    [
        (400, "ValidationException", (400, "ValidationException")),
        (429, "ThrottlingException", (429, "upstream_rate_limit")),
        (400, "ServiceQuotaExceededException", (429, "upstream_rate_limit")),
        (403, "AccessDeniedException", (502, "upstream_error")),
        (424, "ModelErrorException", (502, "upstream_error")),
        (408, "ModelTimeoutException", (504, "upstream_timeout")),
    ],
)
def test_errors_are_told_as_what_they_are(
    play: Stage, gateway: RunningGateway, status: int, kind: str, wanted: tuple[int, str]
) -> None:
    headers = {"x-amzn-ErrorType": f"{kind}:http://internal.amazon.com/coral/"}
    play.provider.answer = lambda _asked: Answered(
        status, b'{"message": "#: required key [prompt] not found"}', headers
    )
    key = gateway.make_key(10 * PRICE)
    answer = generate(gateway, key)
    assert (answer.status, answer.json["error"]["code"]) == wanted
    assert [charged for _, _, charged in outcomes(gateway, key)] == [0]


def test_a_wrong_clock_is_the_operators_affair_and_no_secret_is_told(play: Stage, gateway: RunningGateway) -> None:
    play.amazon.clock_is_off = timedelta(minutes=6)
    key = gateway.make_key(10 * PRICE)
    answer = generate(gateway, key)
    assert (answer.status, answer.json["error"]["code"]) == (502, "upstream_error")
    assert play.amazon.refused == ["signature expired"]
    assert outcomes(gateway, key) == [("failed", 0, 0)]
    until(lambda: "provider bedrock answers 403" in gateway.server.output)
    gateway.server.wait_to_say("InvalidSignatureException")
    signature = str(play.provider.last.headers["Authorization"]).rpartition("=")[2]
    for secret in (SECRET, SESSION, signature):
        assert secret not in gateway.server.output
        assert secret not in answer.body.decode()


def test_nobody_is_told_secrets_by_a_check(play: Stage, tmp_path: Path) -> None:
    file = tmp_path / "lightmeter.toml"
    file.write_text(play.toml(KEYS, tmp_path))
    command = python_module("proxy.cli", "config", "check", "--config", str(file))
    for environment in (NOWHERE, {**NOWHERE, "BEDROCK_SESSION": ""}):
        done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **environment})
        assert SECRET not in done.stdout + done.stderr
    assert "auth.session_token_env: the environment has no BEDROCK_SESSION" in done.stdout + done.stderr


# --- Credentials that end ---------------------------------------------------------------------------------------------


class Roles:
    """Gives credentials of a role away, as the metadata of a machine (IMDSv2) or of a container, for some seconds."""

    def __init__(self, amazon: Amazon, life_s: float) -> None:
        self.amazon = amazon
        self.life_s = life_s
        self.given = 0

    def answer(self, asked: Asked) -> Answered:
        if asked.method == "PUT":
            return Answered(body=b"token-of-the-metadata")
        if asked.path.endswith("/iam/security-credentials/"):
            return Answered(body=b"role-1")
        self.given += 1
        name, secret, token = f"ASIA{self.given}", f"secret-number-{self.given}", f"session-number-{self.given}"
        self.amazon.accounts[name] = (secret, token)
        ends = datetime.now(UTC) + timedelta(seconds=self.life_s)
        document = {
            "Code": "Success",
            "Type": "AWS-HMAC",
            "AccessKeyId": name,
            "SecretAccessKey": secret,
            "Token": token,
            "LastUpdated": "2026-01-01T00:00:00Z",
            "Expiration": ends.strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        return Answered(body=json.dumps(document).encode())


def test_those_of_a_machine(play: Stage) -> None:
    with recording_provider() as metadata:
        metadata.answer = Roles(play.amazon, 3_600).answer
        environment = {"AWS_EC2_METADATA_DISABLED": "false", "AWS_EC2_METADATA_SERVICE_ENDPOINT": metadata.url}
        gateway = play.gateway('type = "aws", region = "us-west-2"', environment)
        assert generate(gateway, gateway.make_key(PRICE)).status == 200
        assert play.provider.last.headers["X-Amz-Security-Token"] == "session-number-1"


def test_those_that_end_are_fetched_ahead_of_their_end(play: Stage) -> None:
    roles = Roles(play.amazon, 6)
    with recording_provider() as metadata:
        metadata.answer = roles.answer
        environment = {"AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{metadata.url}/credentials"}
        gateway = play.gateway('type = "aws", region = "us-west-2"', environment)
        key = gateway.make_key(10**9)
        ends, before = time.monotonic() + 8, len(play.provider.asked)
        seen = set()
        while time.monotonic() < ends:
            seen.add(generate(gateway, key).status)
        assert (seen, play.amazon.refused) == ({200}, [])
        used = {str(asked.headers["X-Amz-Security-Token"]) for asked in play.provider.asked[before:]}
        assert len(used) >= 2
        assert "secret-number-" not in gateway.server.output
        assert "session-number-" not in gateway.server.output


def test_those_of_a_profile(play: Stage, tmp_path: Path) -> None:
    file = tmp_path / "credentials"
    file.write_text("[images]\naws_access_key_id = AKIDPROFILE\naws_secret_access_key = secret-of-the-profile\n")
    play.amazon.accounts["AKIDPROFILE"] = ("secret-of-the-profile", "")
    environment = {"AWS_SHARED_CREDENTIALS_FILE": str(file)}
    gateway = play.gateway('type = "aws", region = "us-west-2", profile = "images"', environment)
    assert generate(gateway, gateway.make_key(PRICE)).status == 200
    assert play.provider.last.headers["X-Amz-Security-Token"] is None


def test_those_of_a_workload(play: Stage, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("assertion-one")
    play.amazon.accounts["ASIAWORKLOAD"] = ("secret-of-the-workload", "session-of-the-workload")
    ends = (datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    answer = f"""<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
<AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>ASIAWORKLOAD</AccessKeyId>
<SecretAccessKey>secret-of-the-workload</SecretAccessKey><SessionToken>session-of-the-workload</SessionToken>
<Expiration>{ends}</Expiration></Credentials></AssumeRoleWithWebIdentityResult>
</AssumeRoleWithWebIdentityResponse>"""
    with recording_provider() as issuer:
        issuer.answer = lambda _asked: Answered(body=answer.encode(), headers={"Content-Type": "text/xml"})
        environment = {
            "AWS_ROLE_ARN": "arn:aws:iam::123456789012:role/images",
            "AWS_WEB_IDENTITY_TOKEN_FILE": str(file),
            "AWS_ENDPOINT_URL_STS": issuer.url,
        }
        gateway = play.gateway('type = "aws", region = "us-west-2"', environment)
        assert generate(gateway, gateway.make_key(PRICE)).status == 200
        assert b"WebIdentityToken=assertion-one" in issuer.last.body
        assert "session-of-the-workload" not in gateway.server.output


def test_without_any_nothing_is_sent_and_the_operator_is_told_what_to_do(play: Stage) -> None:
    gateway = play.gateway('type = "aws", region = "us-west-2"')
    key, before = gateway.make_key(PRICE), len(play.provider.asked)
    answer = generate(gateway, key)
    assert (answer.status, answer.json["error"]["code"]) == (502, "upstream_error")
    assert len(play.provider.asked) == before
    assert outcomes(gateway, key) == [("unreachable", 0, 0)]
    until(lambda: "no credentials were found" in gateway.server.output)
    gateway.server.wait_to_say("AWS_WEB_IDENTITY_TOKEN_FILE")
