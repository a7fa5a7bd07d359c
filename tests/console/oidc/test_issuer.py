"""What is asked of an OpenID provider, and what is believed of its answers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from joserfc import jwt
from joserfc.errors import SecurityWarning
from joserfc.jwk import ECKey, OKPKey, RSAKey
from yarl import URL

from proxy.web.console.oidc.fetching import ANSWER_BYTES_LIMIT, Fetcher
from proxy.web.console.oidc.id_token import IdTokenChecker, UnknownKey
from proxy.web.console.oidc.issuer import KEEP_S, Client, Issuer
from proxy.web.console.oidc.refusal import SignInRefused
from tests.support.openid_provider import OpenIdProvider, SigningKey, openid_provider, signed

NONCE, VERIFIER = "the-nonce", "v" * 43
GOOD = {"iss": "https://login.test", "aud": "lightmeter", "sub": "u-1", "iat": 1_000, "exp": 2_000, "nonce": NONCE}


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(scope="module")
def running_provider() -> Iterator[OpenIdProvider]:
    provider = openid_provider("http://127.0.0.1:1")
    with provider.running():
        yield provider


@pytest.fixture
def provider(running_provider: OpenIdProvider) -> OpenIdProvider:
    running_provider.reset()
    running_provider.asked.clear()
    return running_provider


@pytest.fixture
async def opened() -> AsyncIterator[Callable[..., Issuer]]:
    issuers: list[Issuer] = []

    def open_one(provider: OpenIdProvider, clock: Clock | None = None, timeout_s: float = 5, **changes: Any) -> Issuer:
        values: dict[str, Any] = {
            "issuer": provider.issuer,
            "client_id": provider.client_id,
            "scopes": ("openid",),
            "redirect_uri": provider.redirect_uri,
            "client_secret": provider.secret,
            **changes,
        }
        issuers.append(Issuer(Client(**values), Fetcher(timeout_s), clock or Clock()))
        return issuers[-1]

    yield open_one
    for each in issuers:
        await each.close()


Opened = Callable[..., Issuer]


async def test_its_description_and_its_keys_are_kept_for_an_hour_and_fetched_once_for_all_who_wait(
    provider: OpenIdProvider, opened: Opened
) -> None:
    clock = Clock()
    issuer = opened(provider, clock)
    await asyncio.gather(*(issuer.keys() for _ in range(20)))
    assert provider.asked == ["openid-configuration", "keys"]
    clock.now += KEEP_S - 1
    await issuer.keys()
    assert len(provider.asked) == 2
    clock.now += 1
    await issuer.keys()
    assert provider.asked[2:] in (["openid-configuration", "keys"], ["keys", "openid-configuration"])


async def test_who_waits_may_leave_and_the_others_are_answered(provider: OpenIdProvider, opened: Opened) -> None:
    issuer = opened(provider)
    one, other = asyncio.create_task(issuer.keys()), asyncio.create_task(issuer.keys())
    await asyncio.sleep(0)
    one.cancel()
    assert len(await other) == 3
    with pytest.raises(asyncio.CancelledError):
        await one


def answering(**more: Any) -> Callable[[web.Request], web.StreamResponse]:
    return lambda _: web.Response(**more)


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (answering(status=503, text="{}"), "answers 503 at http://"),
        (answering(text="<html>"), "answers 200 without a JSON object"),
        (answering(text="[]"), "answers 200 without a JSON object"),
        (answering(text="x" * (ANSWER_BYTES_LIMIT + 1)), f"sends more than {ANSWER_BYTES_LIMIT} bytes"),
        (
            answering(status=302, headers={"Location": "file:///etc/passwd"}),
            "sends from http://localhost",
        ),
        (answering(status=307, headers={"Location": "http://169.254.169.254/"}), "is not followed"),
    ],
)
async def test_an_answer_that_cannot_be_used_is_told(
    provider: OpenIdProvider, opened: Opened, document: Any, words: str
) -> None:
    provider.document = document
    issuer = opened(provider)
    with pytest.raises(SignInRefused, match=words):
        await issuer.metadata()
    # It is asked again the next time.
    provider.reset()
    assert (await issuer.metadata()).token_endpoint == f"{provider.issuer}/token"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"issuer": "https://login.evil.example"}, "says that it is https://login.evil.example"),
        ({"token_endpoint": None}, "gives None for token_endpoint"),
        ({"token_endpoint": "ftp://login.test/token"}, "gives ftp://login.test/token for token_endpoint"),
        ({"jwks_uri": "http://login.test/keys"}, "gives http://login.test/keys for jwks_uri"),
        ({"authorization_endpoint": "https://u:p@login.test/"}, "for authorization_endpoint"),
        ({"authorization_endpoint": "javascript:alert(1)"}, "for authorization_endpoint"),
        ({"jwks_uri": ["https://login.test/"]}, "for jwks_uri"),
    ],
)
async def test_a_description_that_sends_elsewhere_is_refused(
    provider: OpenIdProvider, opened: Opened, changes: dict[str, Any], words: str
) -> None:
    provider.metadata_changes = changes
    with pytest.raises(SignInRefused, match=words):
        await opened(provider).metadata()


async def test_an_issuer_by_tls_sends_nowhere_without(provider: OpenIdProvider) -> None:
    class Documents(Fetcher):
        async def get(self, url: str) -> dict[str, Any]:
            names = ("authorization_endpoint", "jwks_uri")
            told = {"issuer": "https://login.test", "token_endpoint": "http://127.0.0.1:1/token"}
            return {**dict.fromkeys(names, "https://login.test/x"), **told}

    client = Client("https://login.test", "lightmeter", ("openid",), "https://meter.test/console/oidc/callback")
    with pytest.raises(SignInRefused, match="for token_endpoint: an https:// address is needed"):
        await Issuer(client, Documents()).metadata()


async def test_a_provider_that_is_away_is_told(provider: OpenIdProvider, opened: Opened) -> None:
    away = openid_provider("http://127.0.0.1:1")
    with pytest.raises(SignInRefused, match=r"cannot be reached at http://localhost:\d+/.+ \(ClientConnector"):
        await opened(away).metadata()
    with away.running():
        assert (await opened(away).metadata()).names_itself


async def test_a_provider_that_is_silent_is_not_waited_for(opened: Opened) -> None:
    async def keep_silent(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _reader.read()
        writer.close()

    server = await asyncio.start_server(keep_silent, "127.0.0.1", 0)
    silent = OpenIdProvider(server.sockets[0].getsockname()[1], "http://127.0.0.1:1/")
    try:
        with pytest.raises(SignInRefused, match=r"does not answer within 0\.2 s"):
            await opened(silent, timeout_s=0.2).metadata()
    finally:
        server.close()


@pytest.mark.parametrize(
    ("methods", "secret"),
    [
        (None, "the secret of the client & its = signs"),
        (["client_secret_post"], "the secret of the client & its = signs"),
        (["client_secret_post", "client_secret_basic"], "s"),
        (["none"], ""),
    ],
)
async def test_a_code_is_exchanged_as_the_provider_wants_it(
    provider: OpenIdProvider, opened: Opened, monkeypatch: pytest.MonkeyPatch, methods: Any, secret: str
) -> None:
    monkeypatch.setattr(provider, "secret", secret)
    provider.metadata_changes = {"token_endpoint_auth_methods_supported": methods} if methods else {}
    issuer = opened(provider)
    address = await issuer.address(state="s", nonce=NONCE, verifier=VERIFIER)
    assert await issuer.exchange(await code_of(address), VERIFIER)
    # Only with what was hashed before.
    with pytest.raises(SignInRefused, match="invalid_grant"):
        await issuer.exchange(await code_of(address), "w" * 43)


async def test_another_redirect_address_than_the_registered_one_is_told(
    provider: OpenIdProvider, opened: Opened
) -> None:
    code = await code_of(await opened(provider).address(state="s", nonce=NONCE, verifier=VERIFIER))
    elsewhere = opened(provider, redirect_uri="https://meter.test/console/oidc/callback")
    with pytest.raises(SignInRefused, match=r"or https://meter\.test/console/oidc/callback is not the redirect"):
        await elsewhere.exchange(code, VERIFIER)


async def code_of(address: str) -> str:
    async with aiohttp.ClientSession() as session, session.get(address, allow_redirects=False) as answer:
        return str(URL(answer.headers["Location"]).query["code"])


# --- Keys -------------------------------------------------------------------------------------------------------------

KEYS: dict[str, SigningKey | OKPKey] = {
    "RS256": RSAKey.generate_key(2_048, {"kid": "a"}),
    "PS512": RSAKey.generate_key(2_048, {"kid": "b"}),
    "ES256": ECKey.generate_key("P-256", {"kid": "c"}),
    "ES384": ECKey.generate_key("P-384", {"kid": "d"}),
    "Ed25519": OKPKey.generate_key("Ed25519", {"kid": "e"}),
}
PUBLISHED: list[dict[str, Any]] = [dict(key.as_dict(private=False)) for key in KEYS.values()]


def check(token: str, keys: list[dict[str, Any]]) -> dict[str, Any]:
    return IdTokenChecker("https://login.test", "lightmeter").check(token, keys, nonce=NONCE, now_s=1_500)


@pytest.mark.parametrize("algorithm", KEYS)
def test_each_kind_of_key_is_taken_for_its_algorithms(algorithm: str) -> None:
    key: Any = KEYS[algorithm]
    assert check(signed(GOOD, key, algorithm), PUBLISHED)["sub"] == "u-1"
    without_id = jwt.encode({"alg": algorithm}, GOOD, key, algorithms=[algorithm])
    assert check(without_id, PUBLISHED)["sub"] == "u-1"
    others = [each for each in PUBLISHED if each["kid"] != key.kid]
    for token in (signed(GOOD, key, algorithm), without_id):
        with pytest.raises(UnknownKey):
            check(token, others)


def test_a_key_for_something_else_signs_nothing() -> None:
    key = KEYS["RS256"]
    assert isinstance(key, RSAKey)
    (published,) = [each for each in PUBLISHED if each["kid"] == "a"]
    for changes in ({"use": "enc"}, {"alg": "RS512"}, {"key_ops": ["encrypt"]}, {"kty": "oct", "k": "AA"}, {"n": 7}):
        with pytest.raises(UnknownKey):
            check(signed(GOOD, key), [{**published, **changes}])


def test_a_key_that_is_too_short_signs_nothing() -> None:
    with pytest.warns(SecurityWarning):
        key = RSAKey.generate_key(1_024, {"kid": "short"})
    published = dict(key.as_dict(private=False))
    with pytest.raises(UnknownKey):
        check(signed(GOOD, key), [published])
    # Nor one that only looks longer.
    with pytest.raises(UnknownKey), pytest.warns(SecurityWarning):
        check(signed(GOOD, key), [{**published, "n": "A" * 172 + str(published["n"])}])


def test_what_is_no_claims_is_refused() -> None:
    key = KEYS["RS256"]
    assert isinstance(key, RSAKey)
    for text in ("[]", "null", '{"exp": NaN}'):
        token = signed(GOOD, key)
        with pytest.raises(SignInRefused):
            check(token.replace(token.split(".")[1], json.dumps(text)), PUBLISHED)
    with pytest.raises(SignInRefused, match="compare the clocks"):
        check(signed({**GOOD, "exp": float("nan")}, key), PUBLISHED)
