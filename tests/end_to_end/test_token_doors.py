"""Providers that want tokens: of Microsoft Entra and of Google, from stand-ins for where these come from."""

from __future__ import annotations

import json
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest

from tests.support.gateways import Answer, RunningGateway, ask, running_gateway
from tests.support.polling import until
from tests.support.recording_provider import Answered, Asked, RecordingProvider, recording_provider
from tests.support.requirements import program

GENERATIONS = "/v1/images/generations"
LIFE_S = 4


@dataclass
class Issuer:
    """What gives tokens away that last some seconds, and knows which of them are good."""

    tls_url: str = ""
    good_until: dict[str, float] = field(default_factory=dict)
    failing: bool = False
    asked: list[Asked] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, asked: Asked) -> Answered:
        if asked.path.endswith("/.well-known/openid-configuration"):
            base = f"{self.tls_url}/tenant-1"
            return Answered(
                body=json.dumps(
                    {
                        "token_endpoint": f"{base}/oauth2/v2.0/token",
                        "authorization_endpoint": f"{base}/oauth2/v2.0/authorize",
                        "issuer": f"{base}/v2.0",
                    }
                ).encode()
            )
        flavor = {"Metadata-Flavor": "Google"}
        if asked.path.endswith("/instance/service-accounts/default/"):
            return Answered(body=b'{"email": "robot@project.example", "scopes": ["x"]}', headers=flavor)
        with self.lock:
            self.asked.append(asked)
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        time.sleep(0.2)
        with self.lock:
            self.at_once -= 1
            if self.failing:
                refusal = {"error": "invalid_client", "error_description": "AADSTS7000222: the secret has expired"}
                return Answered(401, json.dumps(refusal).encode(), flavor)
            token = f"token-{len(self.asked)}-" + "x" * 40
            self.good_until[token] = time.time() + LIFE_S
        body = {
            "access_token": token,
            "expires_in": LIFE_S,
            "expires_on": str(int(time.time()) + LIFE_S),
            "token_type": "Bearer",
            "resource": "https://cognitiveservices.azure.com",
            "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
        }
        return Answered(body=json.dumps(body).encode(), headers=flavor)

    def knows(self, asked: Asked) -> bool:
        token = str(asked.headers["Authorization"]).removeprefix("Bearer ")
        return time.time() < self.good_until.get(token, 0)


def certify(folder: Path) -> None:
    command = [
        *(program("openssl", "openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
        *("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"),
        *("-keyout", f"{folder}/tls.key", "-out", f"{folder}/tls.crt"),
    ]
    subprocess.run(command, check=True, capture_output=True)


@dataclass(frozen=True)
class Stage:
    folder: Path
    provider: RecordingProvider
    plain: RecordingProvider
    secure: RecordingProvider
    issuer: Issuer
    stack: ExitStack

    def gateway(self, auth: str, environment: dict[str, str] | None = None) -> RunningGateway:
        folder = self.folder / f"gateway-{len(list(self.folder.iterdir()))}"
        toml = f"""
[server]
listen = "127.0.0.1:0"
[admin]
listen = "127.0.0.1:0"
[store]
url = "embedded:{folder}/data"
[[providers]]
name = "cloud"
base_url = "{self.provider.url}/v1"
auth = {{ {auth} }}
[[models]]
id = "m"
provider = "cloud"
upstream_model = "m-1"
token_multiplier = 1
"""
        variables = {
            "REQUESTS_CA_BUNDLE": f"{self.folder}/tls.crt",
            "AZURE_AUTHORITY_HOST": self.secure.url,
            "CLIENT_SECRET": "the-secret-of-the-client",
            **(environment or {}),
        }
        return self.stack.enter_context(running_gateway(folder, toml, variables))


@pytest.fixture
def play(tmp_path: Path) -> Iterator[Stage]:
    certify(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "tls.crt", tmp_path / "tls.key")
    with ExitStack() as stack:
        issuer = Issuer()
        provider, plain = (stack.enter_context(recording_provider()) for _ in range(2))
        secure = stack.enter_context(recording_provider(context))
        issuer.tls_url = secure.url
        plain.answer = secure.answer = issuer.answer
        provider.answer = lambda asked: Answered() if issuer.knows(asked) else Answered(401, b'{"error": "no"}')
        yield Stage(tmp_path, provider, plain, secure, issuer, stack)


def generate(gateway: RunningGateway, key: str) -> Answer:
    return ask("POST", gateway.url + GENERATIONS, key=key, body={"model": "m", "prompt": "a cube"})


def put_under_load(play: Stage, gateway: RunningGateway) -> None:
    """For three lives of a token, nobody is refused, and no two tokens are fetched at once."""
    key = gateway.make_key(10**9)
    ends = time.monotonic() + 3 * LIFE_S

    def work(_number: int) -> set[int]:
        seen = set()
        while time.monotonic() < ends:
            seen.add(generate(gateway, key).status)
        return seen

    with ThreadPoolExecutor(4) as pool:
        assert set().union(*pool.map(work, range(4))) == {200}
    assert play.issuer.most_at_once == 1
    assert 3 <= len(play.issuer.asked) <= 6
    assert len({str(asked.headers["Authorization"]) for asked in play.provider.asked}) >= 3
    log = gateway.server.output
    assert not any(token in log for token in play.issuer.good_until)
    assert "the-secret-of-the-client" not in log
    assert '"logger":"azure' not in log


def form_of(asked: Asked) -> dict[str, Any]:
    return {name: values[0] for name, values in parse_qs(asked.body.decode()).items()}


ENTRA = 'type = "entra", tenant_id = "tenant-1", client_id = "client-1", client_secret_env = "CLIENT_SECRET"'


def test_entra_for_a_secret(play: Stage) -> None:
    put_under_load(play, play.gateway(ENTRA))
    asked = form_of(play.issuer.asked[0])
    assert (asked["client_id"], asked["client_secret"], asked["grant_type"]) == (
        "client-1", "the-secret-of-the-client", "client_credentials",
    )  # fmt: skip
    assert "https://cognitiveservices.azure.com/.default" in asked["scope"]


def test_entra_for_the_identity_of_a_workload_whose_file_changes(play: Stage) -> None:
    file = play.folder / "federated"
    file.write_text("assertion-one")
    gateway = play.gateway(
        'type = "entra", scope = "api://images/.default"',
        {"AZURE_FEDERATED_TOKEN_FILE": str(file), "AZURE_TENANT_ID": "tenant-1", "AZURE_CLIENT_ID": "client-2"},
    )
    key = gateway.make_key(10**9)
    assert generate(gateway, key).status == 200
    asked = form_of(play.issuer.asked[0])
    assert (asked["client_id"], asked["client_assertion"]) == ("client-2", "assertion-one")
    assert "api://images/.default" in asked["scope"]
    file.write_text("assertion-two")
    until(lambda: form_of(play.issuer.asked[-1])["client_assertion"] == "assertion-two")
    assert generate(gateway, key).status == 200


def test_entra_for_a_managed_identity(play: Stage) -> None:
    gateway = play.gateway(
        'type = "entra", client_id = "client-3"', {"AZURE_POD_IDENTITY_AUTHORITY_HOST": play.plain.url}
    )
    assert generate(gateway, gateway.make_key(10**9)).status == 200
    asked = play.issuer.asked[0]
    assert asked.path == "/metadata/identity/oauth2/token"
    assert asked.headers["Metadata"] == "true"
    assert dict(asked.query)["resource"] == "https://cognitiveservices.azure.com"
    assert dict(asked.query)["client_id"] == "client-3"


def test_google_for_a_service_account(play: Stage) -> None:
    file = play.folder / "account.json"
    account = {
        "type": "service_account",
        "client_email": "robot@project.example",
        "private_key": (play.folder / "tls.key").read_text(),
        "private_key_id": "1",
        "project_id": "project",
        "token_uri": f"{play.plain.url}/token",
    }
    file.write_text(json.dumps(account))
    put_under_load(play, play.gateway(f'type = "google", credentials_file = "{file}"'))
    asked = form_of(play.issuer.asked[0])
    assert asked["grant_type"] == "urn:ietf:params:oauth:grant-type:jwt-bearer"


def test_google_for_the_identity_of_a_workload(play: Stage) -> None:
    subject, file = play.folder / "subject", play.folder / "external.json"
    subject.write_text("a-token-of-the-cluster")
    external = {
        "type": "external_account",
        "audience": "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/q",
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "token_url": f"{play.plain.url}/sts",
        "credential_source": {"file": str(subject)},
    }
    file.write_text(json.dumps(external))
    gateway = play.gateway('type = "google"', {"GOOGLE_APPLICATION_CREDENTIALS": str(file)})
    assert generate(gateway, gateway.make_key(10**9)).status == 200
    asked = form_of(play.issuer.asked[0])
    assert asked["subject_token"] == "a-token-of-the-cluster"
    assert asked["scope"] == "https://www.googleapis.com/auth/cloud-platform"


def test_google_on_a_machine_of_its_own(play: Stage) -> None:
    host = play.plain.url.removeprefix("http://")
    gateway = play.gateway('type = "google"', {"GCE_METADATA_HOST": host, "GCE_METADATA_IP": host})
    assert generate(gateway, gateway.make_key(10**9)).status == 200
    assert play.issuer.asked[0].path == "/computeMetadata/v1/instance/service-accounts/default/token"


def test_without_a_token_nothing_is_sent_and_the_operator_is_told_what_to_do(play: Stage) -> None:
    play.issuer.failing = True
    gateway = play.gateway(ENTRA)
    key = gateway.make_key(10**9)
    answer = generate(gateway, key)
    assert (answer.status, answer.json["error"]["code"]) == (502, "upstream_error")
    assert "AADSTS" not in answer.body.decode()
    assert play.provider.asked == []
    (entry,) = gateway.ledger(key)
    assert (entry["outcome"], entry["charged"]) == ("unreachable", 0)
    until(lambda: "AADSTS7000222" in gateway.server.output)
    gateway.server.wait_to_say("Check auth.tenant_id, client_id and scope, and that the secret")
    assert "the-secret-of-the-client" not in gateway.server.output
    play.issuer.failing = False
    until(lambda: generate(gateway, key).status == 200)
    gateway.check_books(key)
