from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.test_command_line import run
from tests.support.gateways import (
    ADMIN_TOKEN,
    Answer,
    RunningGateway,
    SampleProvider,
    ask,
    configuration,
    running_gateway,
)

CI_TOKEN = "the-token-of-the-continuous-integration"
BOB_TOKEN = "the-token-of-bob-who-is-an-admin"
TOKENS = """
[[admin.tokens]]
name = "ci"
role = "viewer"
token_env = "CI_TOKEN"

[[admin.tokens]]
name = "bob"
role = "admin"
token_env = "BOB_TOKEN"
"""


@pytest.fixture(scope="module")
def guarded(provider: SampleProvider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    """A gateway with three admin tokens."""
    folder = tmp_path_factory.mktemp("guarded")
    toml = configuration(f"embedded:{folder}/data", provider.url) + TOKENS
    with running_gateway(folder, toml, {"CI_TOKEN": CI_TOKEN, "BOB_TOKEN": BOB_TOKEN}) as gateway:
        yield gateway


def call(gateway: RunningGateway, token: str | None, method: str = "GET", path: str = "/admin/v1/keys") -> Answer:
    return ask(method, gateway.admin_url + path, key=token, body={"team": "acme"} if method == "POST" else None)


def test_each_token_may_do_what_its_role_says(guarded: RunningGateway) -> None:
    for token in (ADMIN_TOKEN, BOB_TOKEN):
        assert call(guarded, token, "POST").status == 201
        assert call(guarded, token).status == 200
    assert call(guarded, CI_TOKEN).status == 200
    key = call(guarded, CI_TOKEN).json["data"][0]["id"]
    for method, path in (
        ("POST", "/admin/v1/keys"),
        ("PATCH", f"/admin/v1/keys/{key}"),
        ("DELETE", f"/admin/v1/keys/{key}"),
        ("POST", f"/admin/v1/keys/{key}/rotate"),
    ):
        answer = call(guarded, CI_TOKEN, method, path)
        assert answer.status == 403
        assert answer.json["error"] == {
            "message": f"The admin token 'ci' is a viewer, which may read and change nothing; "
            f"{method} needs a token with the role 'admin'.",
            "type": "invalid_request_error",
            "param": None,
            "code": "role_not_allowed",
        }
        assert answer.headers["x-request-id"].startswith("req_")
    assert call(guarded, CI_TOKEN, path=f"/admin/v1/keys/{key}").json["revoked_at"] is None


def test_the_command_line_tells_what_a_role_may_not(guarded: RunningGateway) -> None:
    environment = {"LIGHTMETER_ADMIN_URL": guarded.admin_url, "LIGHTMETER_ADMIN_TOKEN": CI_TOKEN}
    done = run("keys", "create", "--team", "acme", environment=environment)
    assert done.returncode == 1
    assert "'ci' is a viewer" in done.stderr


def test_wrong_tokens_wait_longer_each_time_and_right_ones_never(guarded: RunningGateway) -> None:
    waited: list[float] = []

    def guess() -> None:
        began = time.monotonic()
        answer = call(guarded, "a-guess-of-somebody-else")
        waited.append(time.monotonic() - began)
        assert (answer.status, answer.json["error"]["code"]) == (401, "invalid_api_key")

    for _ in range(3):
        guess()
    assert waited[1] >= 0.2
    assert waited[2] >= 0.4
    threads = [threading.Thread(target=guess) for _ in range(4)]
    for thread in threads:
        thread.start()
    took_s = []
    for _ in range(5):
        began = time.monotonic()
        assert call(guarded, CI_TOKEN).status == 200
        took_s.append(time.monotonic() - began)
    # None of them would be faster than the least that a guess waits by now.
    assert min(took_s) < 0.8
    for thread in threads:
        thread.join()
    assert max(waited) >= 0.8
    guarded.server.wait_to_say("wrong admin token(s) or sign-in code(s) from 127.0.0.1")
    for secret in (CI_TOKEN, BOB_TOKEN, ADMIN_TOKEN, "a-guess-of-somebody-else"):
        assert secret not in guarded.server.output


def test_no_token_at_all_is_told_at_once(guarded: RunningGateway) -> None:
    took_s = []
    for _ in range(10):
        began = time.monotonic()
        assert call(guarded, None).status == 401
        took_s.append(time.monotonic() - began)
    assert min(took_s[5:]) < 0.8


def test_the_text_of_the_gateways_own_token_is_no_other_token(provider: SampleProvider, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "admin-token").write_text(CI_TOKEN)
    path = tmp_path / "lightmeter.toml"
    path.write_text(configuration(f"embedded:{tmp_path}/data", provider.url) + TOKENS)
    secrets = {"SAMPLE_PROVIDER_KEY": "x", "CI_TOKEN": CI_TOKEN, "BOB_TOKEN": BOB_TOKEN}
    done = run("serve", "--config", str(path), environment=secrets)
    assert done.returncode == 1
    assert "'ci' is the gateway's own admin token" in done.stderr
