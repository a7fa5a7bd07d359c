"""A gateway whose console people sign in to by an OpenID provider, and somebody who does."""

from __future__ import annotations

import http.client
from collections.abc import Iterator, Mapping
from http.cookies import SimpleCookie
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.support.gateways import Answer, RunningGateway, SampleProvider, configuration, running_gateway
from tests.support.openid_provider import SECRET, OpenIdProvider, openid_provider
from tests.support.processes import free_port

OIDC = """
[admin.oidc]
issuer = "{issuer}"
client_id = "lightmeter"
client_secret_env = "OIDC_SECRET"
name = "Acme"

[admin.oidc.roles]
operators = "admin"
finance = "viewer"
leads = "team_admin"

[admin.oidc.teams]
research-leads = ["research", "studio"]
"""


@pytest.fixture(scope="session")
def running_issuer() -> Iterator[OpenIdProvider]:
    """The provider; it knows the gateway by its address."""
    provider = openid_provider(f"http://127.0.0.1:{free_port()}")
    with provider.running():
        yield provider


@pytest.fixture
def issuer(running_issuer: OpenIdProvider) -> Iterator[OpenIdProvider]:
    """The provider, good at first."""
    running_issuer.reset()
    yield running_issuer
    running_issuer.reset()


@pytest.fixture(scope="session")
def house(
    running_issuer: OpenIdProvider, provider: SampleProvider, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningGateway]:
    """A gateway with ``[admin.oidc]``."""
    folder = tmp_path_factory.mktemp("oidc")
    origin = running_issuer.redirect_uri.partition("/console/")[0]
    admin = {"listen": origin.removeprefix("http://"), "public_url": origin}
    toml = configuration(f"embedded:{folder}/data", provider.url, admin=admin)
    toml += OIDC.format(issuer=running_issuer.issuer)
    with running_gateway(folder, toml, {"OIDC_SECRET": SECRET}) as running:
        yield running


class Visitor:
    """A browser without pages: it keeps cookies by host, and is sent nowhere by itself."""

    def __init__(self) -> None:
        self.cookies: dict[str, str] = {}

    def get(self, url: str, **headers: str) -> Answer:
        """What is answered there."""
        parts = urlsplit(url)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)
        told = {name: value for name, value in self.cookies.items() if value}
        cookie = {"Cookie": "; ".join(f"{name}={value}" for name, value in told.items())} if told else {}
        try:
            connection.request("GET", f"{parts.path}?{parts.query}", headers={**cookie, **headers})
            response = connection.getresponse()
            for text in response.headers.get_all("Set-Cookie", ()):
                for name, morsel in SimpleCookie(text).items():
                    self.cookies[name] = morsel.value
            return Answer(response.status, dict(response.headers), response.read())
        finally:
            connection.close()

    def begin(self, house: RunningGateway, to: str = "") -> str:
        """The address at the provider."""
        answer = self.get(f"{house.admin_url}/console/oidc/start?to={to}")
        assert answer.status == 302, answer.body
        return answer.headers["Location"]

    def go_and_return(self, house: RunningGateway) -> str:
        """The address that the provider sends back to."""
        answer = self.get(self.begin(house))
        assert answer.status == 302, answer.body
        return answer.headers["Location"]

    def sign_in(self, house: RunningGateway) -> Answer:
        """The gateway's answer when all is done."""
        return self.get(self.go_and_return(house))

    def who(self, house: RunningGateway) -> Answer:
        """Who is signed in."""
        return self.get(f"{house.admin_url}/console/session")


@pytest.fixture
def visitor() -> Visitor:
    return Visitor()


def query_of(url: str) -> Mapping[str, str]:
    """The parameters of an address."""
    return {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
