"""What Amazon's library signs, and what it finds to sign with."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from email.message import Message
from hashlib import sha256
from math import inf
from pathlib import Path
from time import time

import pytest

from proxy.upstream.auth.aws import MACHINE_S, REREAD_S, Aws, SigV4
from tests.support.amazon import Amazon
from tests.support.recording_provider import Answered, Asked, recording_provider

SECRET, SESSION = "made-up/secret", "made-up-session=="
BODY = b'{"prompt":"a cube"}'
PATH = "/model/arn%3Aaws%3Abedrock%2Fa%20b~c%C3%A4/invoke"


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_ROLE_ARN", "AWS_CONTAINER_CREDENTIALS_FULL_URI"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, "/nowhere")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


def signed(query: str = "", host: str = "bedrock-runtime.us-west-2.amazonaws.com", body: bytes = BODY) -> Asked:
    """A request as it arrives, with a signature over ``BODY``."""
    signer = SigV4("us-west-2", "bedrock", "AKID", SECRET, SESSION)
    headers = signer.sign(f"https://{host}{PATH}{query}", "application/json", sha256(BODY).hexdigest())
    message = Message()
    for name, value in {"Host": host, "Content-Type": "application/json", **headers}.items():
        message[name] = value
    return Asked("POST", PATH + query, message, body)


@pytest.mark.parametrize("query", ["", "?b=2&a=1&a=0"])
@pytest.mark.parametrize("host", ["bedrock-runtime.us-west-2.amazonaws.com", "127.0.0.1:8443"])
def test_amazon_comes_to_the_same_signature(query: str, host: str) -> None:
    assert Amazon({"AKID": (SECRET, SESSION)}).mistake(signed(query, host)) is None


def test_anything_else_is_refused() -> None:
    amazon = Amazon({"AKID": (SECRET, SESSION)})
    assert amazon.mistake(signed(body=BODY + b" ")) == "the signature does not match"
    assert Amazon({"AKID": ("another-secret", SESSION)}).mistake(signed()) == "the signature does not match"
    other = signed()
    other.headers.replace_header("Content-Type", "text/plain")
    assert amazon.mistake(other) == "the signature does not match"


def test_nothing_secret_is_shown(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        logging.getLogger("another").debug("seen")
        signature = str(signed().headers["Authorization"])
    assert "seen" in caplog.text
    signer = SigV4("us-west-2", "bedrock", "AKID", SECRET, SESSION)
    token = Aws("us-west-2", "bedrock", "", "AKID", SECRET, SESSION).fetch()
    for text in (caplog.text, repr(signer), repr(token), repr(Aws("r", "s", "", "AKID", SECRET, SESSION))):
        assert not any(secret in text for secret in (SECRET, SESSION, signature[-64:]))


def test_keys_of_the_configuration_have_no_end() -> None:
    token = Aws("us-west-2", "bedrock", "", "AKID", SECRET, SESSION).fetch()
    assert token.signer == SigV4("us-west-2", "bedrock", "AKID", SECRET, SESSION)
    assert token.expires_s - time() > 365 * 86_400
    assert (token.text, token.secrets, token.again_s) == (SECRET, (SESSION,), inf)


def test_a_file_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "credentials"
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    for secret in ("secret-one", "secret-two"):
        file.write_text(f"[images]\naws_access_key_id = AKID\naws_secret_access_key = {secret}\n")
        token = Aws("us-west-2", "bedrock", "images").fetch()
        assert token.signer == SigV4("us-west-2", "bedrock", "AKID", secret)
        assert token.again_s == REREAD_S


def test_a_machine_is_asked_again_soon_since_its_library_says_a_later_end(monkeypatch: pytest.MonkeyPatch) -> None:
    ends = (datetime.now(UTC) + timedelta(minutes=3)).strftime("%Y-%m-%dT%H:%M:%SZ")

    def answer(asked: Asked) -> Answered:
        if asked.path.endswith("/role-1"):
            names = '"AccessKeyId": "ASIA", "SecretAccessKey": "secret", "Token": "session"'
            return Answered(body=f'{{"Code": "Success", {names}, "Expiration": "{ends}"}}'.encode())
        return Answered(body=b"role-1")

    with recording_provider() as metadata:
        metadata.answer = answer
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "false")
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", metadata.url)
        token = Aws("us-west-2", "bedrock").fetch()
    assert token.signer == SigV4("us-west-2", "bedrock", "ASIA", "secret", "session")
    assert token.expires_s - time() > 180
    assert token.again_s == MACHINE_S


def test_without_any_it_says_so() -> None:
    with pytest.raises(ValueError, match="no credentials were found"):
        Aws("us-west-2", "bedrock").fetch()
