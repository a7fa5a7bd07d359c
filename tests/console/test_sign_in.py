"""Signing in to the console, and what a cookie may do."""

from __future__ import annotations

import re
import time
from http.cookies import SimpleCookie
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from proxy.domain.errors import InvalidApiKey, NotFound
from proxy.web.admin.roles import Administrator, AdminToken, Role
from proxy.web.console.first_image import FirstImage, FirstImageView
from proxy.web.console.sessions import LINK_S, Sessions, Signer
from tests.console.conftest import LEAD_TOKEN, VIEWER_TOKEN
from tests.support.gateways import ADMIN_TOKEN, Answer, RunningGateway, ask

OWN = {"x-lightmeter-console": "1"}


def sign_in(gateway: RunningGateway, **body: Any) -> Answer:
    return ask("POST", f"{gateway.admin_url}/console/session", body=body, headers=OWN)


def cookie_of(answer: Answer) -> str:
    return answer.headers["Set-Cookie"].partition(";")[0]


def call(gateway: RunningGateway, method: str, path: str, cookie: str, body: Any = None, **headers: str) -> Answer:
    return ask(method, gateway.admin_url + path, headers={"Cookie": cookie, **headers}, body=body)


def test_a_token_begins_a_session_that_no_script_reads_and_no_other_site_sends(gateway: RunningGateway) -> None:
    answer = sign_in(gateway, token=LEAD_TOKEN)
    assert answer.status == 200
    told = {name: answer.json[name] for name in ("name", "role", "teams")}
    assert told == {"name": "lead", "role": "team_admin", "teams": ["acme", "ghost"]}
    morsel = SimpleCookie(answer.headers["Set-Cookie"])["lightmeter_session"]
    assert (morsel["httponly"], morsel["samesite"], morsel["path"], morsel["max-age"]) == (True, "Strict", "/", "43200")
    assert LEAD_TOKEN not in answer.headers["Set-Cookie"]
    assert answer.headers["Cache-Control"] == "no-store"
    shown = call(gateway, "GET", "/console/session", cookie_of(answer))
    assert {name: shown.json[name] for name in told} == told
    assert shown.json["ends_at"]


def test_a_session_may_do_what_its_token_may(gateway: RunningGateway) -> None:
    gateway.admin("POST", "/admin/v1/teams", body={"id": "acme"})
    lead, viewer = (cookie_of(sign_in(gateway, token=token)) for token in (LEAD_TOKEN, VIEWER_TOKEN))
    assert call(gateway, "GET", "/admin/v1/teams/acme", lead).status == 200
    assert call(gateway, "GET", "/admin/v1/teams/other", lead).status == 403
    made = call(gateway, "POST", "/admin/v1/keys", lead, {"team": "acme"}, **OWN)
    assert made.status == 201
    assert call(gateway, "POST", "/admin/v1/keys", viewer, {"team": "acme"}, **OWN).status == 403
    audit = gateway.admin("GET", "/admin/v1/audit?team=acme&limit=1000").json["data"]
    assert [each["by"] for each in audit if each["target"] == made.json["id"]] == ["lead"]


@pytest.mark.parametrize(
    "path", ["teams", "teams?limit=0", "nothing", "teams/acme/statements/2026-11/csv", "ledger?team=acme", "overview"]
)
def test_what_a_cookie_reads_is_kept_by_no_browser_and_given_to_no_other_page(
    gateway: RunningGateway, path: str
) -> None:
    answer = call(gateway, "GET", f"/admin/v1/{path}", cookie_of(sign_in(gateway, token=ADMIN_TOKEN)))
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'")


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"x-lightmeter-console": "0"},
        {**OWN, "Origin": "http://evil.example"},
        {**OWN, "Origin": "null"},
        {**OWN, "Origin": "http://127.0.0.1:1"},
    ],
)
def test_a_change_by_cookie_comes_from_the_consoles_own_pages(gateway: RunningGateway, headers: dict[str, str]) -> None:
    cookie = cookie_of(sign_in(gateway, token=ADMIN_TOKEN))
    for method, path in (("POST", "/admin/v1/keys"), ("DELETE", "/console/session"), ("POST", "/console/session")):
        answer = call(gateway, method, path, cookie, {"team": "acme", "token": ADMIN_TOKEN}, **headers)
        assert (answer.status, answer.json["error"]["code"]) == (403, "role_not_allowed")
    own_origin = {**OWN, "Origin": gateway.admin_url}
    assert call(gateway, "POST", "/admin/v1/keys", cookie, {"team": "acme"}, **own_origin).status == 201


def test_signing_out_ends_the_session_wherever_its_cookie_is(gateway: RunningGateway) -> None:
    cookie = cookie_of(sign_in(gateway, token=ADMIN_TOKEN))
    other = cookie_of(sign_in(gateway, token=ADMIN_TOKEN))
    gone = call(gateway, "DELETE", "/console/session", cookie, **OWN)
    assert gone.status == 204
    assert SimpleCookie(gone.headers["Set-Cookie"])["lightmeter_session"]["max-age"] == "0"
    for path in ("/admin/v1/teams", "/console/session"):
        assert call(gateway, "GET", path, cookie).status == 401
    assert call(gateway, "GET", "/admin/v1/teams", other).status == 200


def test_a_wrong_token_waits_and_opens_nothing(gateway: RunningGateway) -> None:
    began = time.monotonic()
    answer = sign_in(gateway, token="a-guess-of-somebody-else")
    assert (answer.status, "Set-Cookie" in answer.headers) == (401, False)
    assert time.monotonic() - began >= 0.1
    for cookie in (
        "lightmeter_session=",
        "lightmeter_session=e30.AAAA",
        "lightmeter_session=.",
        "lightmeter_session=é",
    ):
        assert call(gateway, "GET", "/admin/v1/teams", cookie.encode().decode("latin-1")).status == 401
    forged = cookie_of(sign_in(gateway, token=VIEWER_TOKEN))
    assert call(gateway, "GET", "/admin/v1/teams", forged[:-2]).status == 401


def test_a_link_signs_in_once(gateway: RunningGateway) -> None:
    made = ask("POST", f"{gateway.admin_url}/console/codes", key=VIEWER_TOKEN)
    assert made.status == 201
    code = re.fullmatch(r"/console/#code=(\S+)", made.json["path"])
    assert code is not None
    answer = sign_in(gateway, code=code[1], confirmed=True)
    assert (answer.status, answer.json["name"]) == (200, "auditor")
    assert call(gateway, "GET", "/admin/v1/teams", cookie_of(answer)).status == 200
    assert sign_in(gateway, code=code[1]).status == 401
    # What signs in is no session, and the other way round.
    assert call(gateway, "GET", "/admin/v1/teams", f"lightmeter_session={code[1]}").status == 401
    assert ask("POST", f"{gateway.admin_url}/console/codes").status == 401


def code_of(gateway: RunningGateway, token: str) -> str:
    return str(ask("POST", f"{gateway.admin_url}/console/codes", key=token).json["path"]).partition("=")[2]


def test_a_link_of_somebody_else_signs_in_once_that_is_confirmed(gateway: RunningGateway) -> None:
    admin, lead = (cookie_of(sign_in(gateway, token=token)) for token in (ADMIN_TOKEN, LEAD_TOKEN))
    who = {"name": "lead", "role": "team_admin", "teams": ["acme", "ghost"]}
    for cookie, now in (("", None), (admin, "admin")):
        code = code_of(gateway, LEAD_TOKEN)
        for _ in range(2):
            asked = call(gateway, "POST", "/console/session", cookie, {"code": code}, **OWN)
            assert (asked.status, asked.json) == (202, {"confirm": who, "now": now})
            assert "Set-Cookie" not in asked.headers
        confirmed = call(gateway, "POST", "/console/session", cookie, {"code": code, "confirmed": True}, **OWN)
        assert (confirmed.status, confirmed.json["name"]) == (200, "lead")
    # Nobody is asked who is that already, or to whom the gateway's own link gives all.
    for cookie, token, name in ((lead, LEAD_TOKEN, "lead"), ("", ADMIN_TOKEN, "admin"), (admin, ADMIN_TOKEN, "admin")):
        body = {"code": code_of(gateway, token)}
        answer = call(gateway, "POST", "/console/session", cookie, body, **OWN)
        assert (answer.status, answer.json["name"]) == (200, name)
    asked = call(gateway, "POST", "/console/session", lead, {"code": code_of(gateway, ADMIN_TOKEN)}, **OWN)
    assert (asked.status, asked.json["now"]) == (202, "lead")


# --- What time and other tokens do -----------------------------------------------------------------------------------


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


class Remembering:
    """What a store remembers, in this process."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    async def take(self, name: str, *, for_s: int) -> bool:
        assert for_s > 0
        is_new = name not in self.names
        self.names.add(name)
        return is_new

    async def is_taken(self, name: str) -> bool:
        return name in self.names


def sessions(clock: Clock, *tokens: AdminToken, secret: str = "", secure: bool = False) -> Sessions:
    return Sessions(Signer(secret or "gateway", clock), tokens, Remembering(), max_age_s=3_600, secure=secure)


def request_with(cookie: str) -> Any:
    return make_mocked_request("GET", "/", headers={"Cookie": cookie})


def begun(among: Sessions, who: Administrator) -> Any:
    response = web.Response()
    among.begin(who, response)
    return request_with(f"{among.cookie}={response.cookies[among.cookie].value}")


BOB = AdminToken.of("bob", Role.ADMIN, "the-token-of-bob-who-is-an-admin")


async def test_a_session_ends_by_age() -> None:
    clock = Clock()
    among = sessions(clock, BOB)
    request = begun(among, BOB)
    clock.now += 3_599
    assert await among.of(request) is BOB
    clock.now += 1
    assert await among.of(request) is None


async def test_a_session_ends_with_its_token_and_with_the_gateways_secret() -> None:
    clock = Clock()
    request = begun(sessions(clock, BOB), BOB)
    assert await sessions(clock, BOB).of(request) is BOB
    now_viewer = AdminToken.of("bob", Role.VIEWER, "the-token-of-bob-who-is-an-admin")
    assert await sessions(clock, now_viewer).of(request) is now_viewer
    assert await sessions(clock, AdminToken.of("bob", Role.ADMIN, "another-token-of-bob")).of(request) is None
    assert await sessions(clock).of(request) is None


async def test_a_session_without_a_token_ends_with_the_rules_that_let_somebody_in() -> None:
    clock, ada = Clock(), Administrator("oidc:ada", Role.TEAM_ADMIN, frozenset({"acme"}))

    def among(people: bytes) -> Sessions:
        return Sessions(Signer("gateway", clock), (), Remembering(), max_age_s=60, secure=False, people=people)

    request = begun(among(b"rules"), ada)
    assert await among(b"rules").of(request) == ada
    for people in (b"", b"other rules"):
        assert await among(people).of(request) is None
    assert await sessions(clock, BOB, secret="another-secret").of(request) is None


def test_a_guess_at_the_gateways_secret_is_slow() -> None:
    # Whoever may only read has a cookie, and could compare millions of guesses a second with its signature.
    began = time.process_time()
    assert Signer("a-secret-that-no-other-test-has").read("session", "e30.AAAA") is None
    assert time.process_time() - began > 0.01


async def test_somebody_without_a_token_is_told_by_the_cookie() -> None:
    clock = Clock()
    among = sessions(clock, BOB, secure=True)
    assert among.cookie == "__Host-lightmeter"
    ann = Administrator("ann@corp.example", Role.TEAM_ADMIN, frozenset({"b", "a"}))
    assert await among.of(begun(among, ann)) == ann
    with pytest.raises(ValueError, match="too many teams"):
        begun(among, Administrator("ann", Role.TEAM_ADMIN, frozenset(f"team-{number:035}" for number in range(100))))


async def test_the_first_image_is_for_those_who_see_its_team() -> None:
    among = sessions(Clock(), BOB)
    view = FirstImageView(among)
    with pytest.raises(InvalidApiKey):
        await view.show(request_with(""))
    with pytest.raises(NotFound):
        await view.show(begun(among, BOB))
    view.shown = FirstImage(b"a picture", "image/png", {"team": "demo"})
    viewer, own, other = (
        Administrator("ann", role, frozenset({team}))
        for role, team in ((Role.VIEWER, ""), (Role.TEAM_ADMIN, "demo"), (Role.TEAM_ADMIN, "acme"))
    )
    for who in (BOB, viewer, own):
        assert view.about(who) == {"team": "demo", "picture": "/console/demo/picture"}
        answer = await view.show(begun(among, who))
        assert (answer.body, answer.content_type, answer.headers["Cache-Control"]) == (
            *(b"a picture", "image/png", "no-store"),
        )
    assert view.about(other) is None
    with pytest.raises(NotFound):
        await view.show(begun(among, other))


async def test_a_link_is_good_for_two_minutes() -> None:
    clock = Clock()
    among = sessions(clock, BOB)
    first, second = among.make_code(BOB), among.make_code(BOB)
    clock.now += LINK_S - 1
    assert await among.use_code(first) is BOB
    assert await among.use_code(first) is None
    clock.now += 1
    assert await among.use_code(second) is None
    longer = among.make_code(BOB, for_s=900)
    clock.now += 899
    assert await among.read_code(longer) is BOB
    assert await among.use_code(longer) is BOB
    assert await among.read_code(longer) is None


@pytest.mark.parametrize(
    ("origin", "is_own"),
    [("https://meter.example", True), ("http://10.0.0.5:8081", True), ("http://meter.example", False), ("null", False)],
)
def test_behind_another_server_the_console_is_known_by_its_public_url(origin: str, is_own: bool) -> None:
    among = Sessions(
        *(Signer("gateway", Clock()), (BOB,), Remembering()),
        max_age_s=60,
        secure=True,
        public_url="https://meter.example",
    )
    headers = {"Host": "10.0.0.5:8081", "Origin": origin, **OWN}
    assert among.is_own_page(make_mocked_request("POST", "/", headers=headers)) is is_own
    assert not among.is_own_page(make_mocked_request("POST", "/", headers={**headers, "x-lightmeter-console": ""}))
