"""Signing in by an OpenID provider that runs, at a gateway that runs."""

from __future__ import annotations

import time
from http.cookies import SimpleCookie
from typing import Any

import pytest
from joserfc.jwk import RSAKey
from playwright.sync_api import expect

from tests.console.browsing import Visitor as Person
from tests.console.browsing import chromium
from tests.console.oidc.conftest import Visitor, query_of
from tests.support.gateways import ADMIN_TOKEN, Answer, RunningGateway, ask
from tests.support.openid_provider import (
    OpenIdProvider,
    SigningKey,
    rsa_key,
    signed,
    signed_with_what_is_public,
    text_of,
    unsigned,
)


def refused(answer: Answer, status: int, *words: str) -> None:
    """A page that says why, and no session."""
    assert (answer.status, answer.headers["Content-Type"]) == (status, "text/html; charset=utf-8")
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert answer.headers["Cache-Control"] == "no-store"
    page = answer.body.decode()
    for each in words:
        assert each in page, page
    assert "lightmeter_session" not in answer.headers.get("Set-Cookie", "")


def test_somebody_signs_in_and_may_do_what_the_claims_say(
    house: RunningGateway, issuer: OpenIdProvider, visitor: Visitor
) -> None:
    assert ask("GET", f"{house.admin_url}/console/ways").json == {"oidc": "Acme"}
    sent = query_of(visitor.begin(house))
    assert (sent["scope"], sent["code_challenge_method"]) == ("openid profile email", "S256")
    answer = visitor.sign_in(house)
    assert (answer.status, answer.headers["Location"]) == (302, "/console/")
    told = visitor.who(house)
    assert {name: told.json[name] for name in ("name", "role", "teams")} == {
        "name": "oidc:ada@acme.example",
        "role": "admin",
        "teams": [],
    }
    assert visitor.cookies["lightmeter_oidc"] == ""
    made = ask(
        "POST",
        f"{house.admin_url}/admin/v1/teams",
        body={"id": "studio"},
        headers={"x-lightmeter-console": "1", "Cookie": f"lightmeter_session={visitor.cookies['lightmeter_session']}"},
    )
    assert made.status == 201
    audit = house.admin("GET", "/admin/v1/audit?team=studio").json["data"]
    assert [each["by"] for each in audit] == ["oidc:ada@acme.example"]


def test_its_cookie_is_lax_short_lived_and_read_by_no_script(house: RunningGateway, issuer: OpenIdProvider) -> None:
    answer = Visitor().get(f"{house.admin_url}/console/oidc/start")
    morsel = SimpleCookie(answer.headers["Set-Cookie"])["lightmeter_oidc"]
    assert (morsel["httponly"], morsel["samesite"], morsel["path"], morsel["max-age"]) == (True, "Lax", "/", "600")
    assert answer.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    ("groups", "role", "teams"),
    [
        (["staff", "finance"], "viewer", []),
        ("finance", "viewer", []),
        (["leads", "research-leads"], "team_admin", ["research", "studio"]),
        (["leads", "finance", "research-leads"], "viewer", []),
        (["leads", "operators"], "admin", []),
    ],
)
def test_claims_give_roles_and_teams(
    house: RunningGateway, issuer: OpenIdProvider, visitor: Visitor, groups: Any, role: str, teams: list[str]
) -> None:
    issuer.changes = {"groups": groups}
    assert visitor.sign_in(house).status == 302
    told = visitor.who(house).json
    assert (told["role"], told["teams"]) == (role, teams)
    changed = visitor.get(f"{house.admin_url}/admin/v1/ledger/books")
    assert changed.status == (403 if role == "team_admin" else 200)


@pytest.mark.parametrize(
    ("groups", "words"),
    [
        (["staff", "<b>bold</b>"], ["The claim &#x27;groups&#x27; holds staff, &lt;b&gt;bold&lt;/b&gt;."]),
        (None, ["The ID token holds no claim &#x27;groups&#x27;"]),
        (["leads"], ["The claim &#x27;groups&#x27; holds leads.", "a team_admin needs one"]),
        ({"operators": True, "x": 1}, []),
        ([["operators"], 7], ["The ID token holds no claim &#x27;groups&#x27;"]),
    ],
)
def test_nobody_without_a_role_gets_in_and_the_page_says_which_claim_was_looked_at(
    house: RunningGateway, issuer: OpenIdProvider, visitor: Visitor, groups: Any, words: list[str]
) -> None:
    issuer.changes = {"groups": groups}
    answer = visitor.sign_in(house)
    if not words:
        # Names of an object are values: Zitadel gives roles so.
        assert answer.status == 302
        return
    refused(answer, 403, *words)
    assert visitor.who(house).status == 401


def test_somebody_is_sent_back_to_the_page_that_was_asked_for_and_nowhere_else(
    house: RunningGateway, issuer: OpenIdProvider, visitor: Visitor
) -> None:
    for to, place in (
        ("/console/ledger%3Fteam%3Dstudio", "/console/ledger?team=studio"),
        ("https://evil.example/console/", "/console/"),
        ("//evil.example", "/console/"),
        ("/console/%0d%0aSet-Cookie:x", "/console/"),
        ("/console/..%5C..%5Cevil", "/console/"),
    ):
        at_provider = visitor.begin(house, to)
        back = visitor.get(at_provider).headers["Location"]
        assert visitor.get(back).headers["Location"] == place


# --- What comes back --------------------------------------------------------------------------------------------------


def test_a_state_that_was_not_given_to_this_browser_is_refused(house: RunningGateway, issuer: OpenIdProvider) -> None:
    one, other = Visitor(), Visitor()
    back = one.go_and_return(house)
    refused(other.get(back), 400, "No sign-in was begun in this browser", issuer.redirect_uri)
    other.begin(house)
    issuer.asked.clear()
    refused(other.get(back), 400, "not the sign-in that was begun last")
    refused(one.get(back.replace("state=", "state=x")), 400, "not the sign-in that was begun last")
    refused(one.get(f"{back}&state=x"), 400, "not the sign-in that was begun last")
    forged = Visitor()
    forged.cookies["lightmeter_oidc"] = one.cookies["lightmeter_oidc"][:-2] + "AA"
    refused(forged.get(back), 400, "No sign-in was begun in this browser")
    # A session's cookie is no sign-in's, and nothing was asked for.
    assert issuer.asked == []
    assert one.get(back).status == 302


def test_a_code_is_used_once(house: RunningGateway, issuer: OpenIdProvider, visitor: Visitor) -> None:
    back = visitor.go_and_return(house)
    kept = dict(visitor.cookies)
    assert visitor.get(back).status == 302
    visitor.cookies = kept
    issuer.asked.clear()
    refused(visitor.get(back), 400, "finished before")
    assert issuer.asked == []
    # In a sign-in of its own, the provider refuses it, and whoever guesses waits.
    again = visitor.go_and_return(house)
    began = time.monotonic()
    answer = visitor.get(again.replace(query_of(again)["code"], query_of(back)["code"]))
    refused(answer, 502, "refuses the code (invalid_grant)", issuer.redirect_uri)
    assert time.monotonic() - began >= 0.1


def test_a_code_that_another_browser_was_given_is_good_for_nothing(
    house: RunningGateway, issuer: OpenIdProvider
) -> None:
    victim, thief = Visitor(), Visitor()
    stolen = query_of(victim.go_and_return(house))["code"]
    back = thief.go_and_return(house)
    # The provider looks at the verifier (PKCE).
    refused(thief.get(back.replace(query_of(back)["code"], stolen)), 502, "invalid_grant")


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [("access_denied", 403, "access_denied"), ("server_error<i>", 502, "server_error&lt;i&gt;")],
)
def test_an_error_of_the_provider_is_told(
    house: RunningGateway, issuer: OpenIdProvider, visitor: Visitor, error: str, status: int, words: str
) -> None:
    issuer.refuses = error
    refused(visitor.sign_in(house), status, words)


def test_an_answer_of_another_issuer_is_refused(
    house: RunningGateway, issuer: OpenIdProvider, visitor: Visitor
) -> None:
    back = visitor.go_and_return(house)
    refused(visitor.get(back.replace("iss=", "iss=x")), 502, "(iss), not of")
    back = visitor.go_and_return(house)
    refused(visitor.get(back.replace("iss=", "was=")), 502, "is of nobody (iss)")


# --- The ID token -----------------------------------------------------------------------------------------------------

NOW = int(time.time())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"nonce": "another"}, "its nonce is another"),
        ({"nonce": None}, "its nonce is another"),
        ({"nonce": ["another"]}, "its nonce is another"),
        ({"aud": "another-client"}, "is for another-client, not for the client lightmeter"),
        ({"aud": ["another-client"]}, "not for the client lightmeter"),
        ({"aud": None}, "has no"),
        ({"aud": ["lightmeter", "another-client"]}, "(azp)"),
        ({"azp": "another-client"}, "was given to another-client (azp)"),
        ({"iss": "https://login.evil.example"}, "was issued by https://login.evil.example, not by"),
        ({"iss": None}, "has no"),
        ({"exp": NOW - 120}, "has expired"),
        ({"exp": None}, "has no"),
        ({"exp": "tomorrow"}, "compare the clocks"),
        ({"iat": NOW + 3_600, "exp": NOW + 7_200}, "compare the clocks"),
        ({"iat": None}, "has no"),
        ({"nbf": NOW + 3_600}, "compare the clocks"),
        ({"sub": None}, "has no"),
    ],
)
def test_an_id_token_with_a_wrong_claim_signs_nobody_in(
    house: RunningGateway, issuer: OpenIdProvider, visitor: Visitor, changes: dict[str, Any], words: str
) -> None:
    issuer.changes = changes
    refused(visitor.sign_in(house), 502, words)
    assert visitor.who(house).status == 401


def test_clocks_may_differ_a_little(house: RunningGateway, issuer: OpenIdProvider, visitor: Visitor) -> None:
    now = int(time.time())
    issuer.changes = {"iat": now + 30, "exp": now - 20, "aud": ["lightmeter", "other"], "azp": "lightmeter"}
    assert visitor.sign_in(house).status == 302


def of_nobody(claims: dict[str, Any], key: SigningKey) -> str:
    """Signed with a key of the published one's name."""
    return signed(claims, rsa_key(str(key.kid)))


def changed_afterwards(claims: dict[str, Any], key: SigningKey) -> str:
    head, _, mac = signed({**claims, "groups": []}, key).split(".")
    body = signed(claims, rsa_key("other")).split(".")[1]
    return f"{head}.{body}.{mac}"


def by_another_algorithm(claims: dict[str, Any], key: SigningKey) -> str:
    """By the right key, which is published for RS256 only."""
    content = {name: value for name, value in key.as_dict(private=True).items() if name != "alg"}
    return signed(claims, RSAKey.import_key(content), "PS256")


def critical(claims: dict[str, Any], key: SigningKey) -> str:
    """It says that nobody may take it who does not know what ``exp`` in its head means."""
    _, body, mac = signed(claims, key).split(".")
    head = text_of(b'{"alg":"RS256","kid":"' + str(key.kid).encode() + b'","crit":["exp"],"exp":1}')
    return f"{head}.{body}.{mac}"


@pytest.mark.parametrize(
    ("sign", "words"),
    [
        (unsigned, "is signed by none"),
        (signed_with_what_is_public, "is signed by HS256"),
        (of_nobody, "not signed with a key that the provider publishes"),
        (changed_afterwards, "not signed with a key that the provider publishes"),
        (critical, "The ID token of the OpenID provider"),
        (lambda claims, key: signed(claims, key, kid="of-tomorrow"), "not signed with a key"),
        (lambda claims, key: signed(claims, key, kid="broken"), "not signed with a key"),
        (by_another_algorithm, "not signed with a key"),
        (lambda claims, key: "no.token", "cannot be read"),
        (lambda claims, key: "", "cannot be read"),
        (lambda claims, key: signed({**claims, "more": "x" * 70_000}, key), "more than 65536 characters"),
    ],
)
def test_an_id_token_with_a_wrong_signature_signs_nobody_in(
    house: RunningGateway, issuer: OpenIdProvider, visitor: Visitor, sign: Any, words: str
) -> None:
    issuer.sign = sign
    refused(visitor.sign_in(house), 502, words)
    assert visitor.who(house).status == 401


def test_a_provider_may_change_its_keys(house: RunningGateway, issuer: OpenIdProvider, visitor: Visitor) -> None:
    assert visitor.sign_in(house).status == 302
    issuer.asked.clear()
    assert visitor.sign_in(house).status == 302
    # What is known is not asked for again.
    assert issuer.asked == ["authorize", "token"]
    old = issuer.keys[:]
    issuer.keys[:] = [rsa_key("second")]
    try:
        issuer.asked.clear()
        assert visitor.sign_in(house).status == 302
        assert issuer.asked == ["authorize", "token", "keys"]
        # The old key is not published any more, and so not believed.
        issuer.sign = lambda claims, _: signed(claims, old[0])
        refused(visitor.sign_in(house), 502, "not signed with a key")
    finally:
        issuer.keys[:] = old


def test_the_secret_and_codes_are_in_no_log(house: RunningGateway, issuer: OpenIdProvider, visitor: Visitor) -> None:
    back = visitor.go_and_return(house)
    assert visitor.get(back).status == 302
    wrong = visitor.go_and_return(house)
    issuer.secret, kept = "another", issuer.secret
    try:
        refused(visitor.get(wrong), 502, "does not take the client lightmeter (invalid_client)")
    finally:
        issuer.secret = kept
    # Lines are written by a thread of their own.
    house.server.wait_for_output(r"\(invalid_client\)")
    output = house.server.output
    assert "oidc:ada@acme.example signed in to the console from 127.0.0.1, as admin" in output
    assert "invalid_client" in output
    assert f"has the redirect address {issuer.redirect_uri}" in output
    for secret in (kept, query_of(back)["code"], query_of(wrong)["code"], query_of(back)["state"]):
        assert secret not in output


def test_a_provider_that_is_away_is_told_and_asked_again(
    house: RunningGateway, issuer: OpenIdProvider, visitor: Visitor
) -> None:
    def break_off(request: Any) -> None:
        assert request.transport is not None
        request.transport.abort()

    back = visitor.go_and_return(house)
    issuer.document = break_off
    refused(visitor.get(back), 502, "The OpenID provider cannot be reached at", "/token")
    issuer.reset()
    assert visitor.sign_in(house).status == 302
    # A token works in any case.
    assert ask("GET", f"{house.admin_url}/admin/v1/teams", key=ADMIN_TOKEN).status == 200


@pytest.mark.slow
def test_in_a_browser(house: RunningGateway, issuer: OpenIdProvider) -> None:
    with chromium() as browser:
        person = Person(browser, house.admin_url)
        person.page.goto(f"{house.admin_url}/console/audit?team=studio")
        person.page.get_by_role("link", name="Sign in with Acme").click()
        expect(person.page.get_by_role("heading", level=1)).to_have_text("Audit")
        expect(person.page.get_by_text("oidc:ada@acme.example").first).to_be_visible()
        assert person.page.url == f"{house.admin_url}/console/audit?team=studio"
        cookies = {each["name"]: each.get("sameSite") for each in person.context.cookies()}
        assert cookies == {"lightmeter_session": "Strict"}
        person.check()
        person.page.get_by_role("button", name="Sign out").click()
        issuer.changes = {"groups": ["staff"]}
        person.page.get_by_role("link", name="Sign in with Acme").click()
        expect(person.page.get_by_role("alert")).to_contain_text("The claim 'groups' holds staff")
        person.wrong = [each for each in person.wrong if "403 (Forbidden)" not in each]
        person.check()
        person.page.get_by_role("link", name="To the sign-in page").click()
        expect(person.page.get_by_role("link", name="Sign in with Acme")).to_be_visible()
        person.context.close()
