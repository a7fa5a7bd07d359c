"""The section ``[admin.oidc]``: an OpenID provider that people sign in to the console by, and who they are here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from yarl import URL

from proxy.domain.api_key import TEAM_ID_PATTERN
from proxy.settings.values import VariableName, one_of
from proxy.telemetry.program import PROGRAM
from proxy.web.admin.roles import Role
from proxy.web.console.oidc.issuer import CALLBACK, LOOPBACK, Client, is_safe
from proxy.web.console.oidc.rules import TEAMS_LIMIT, ClaimRules

MAPPED_LIMIT = 10_000


def _issuer(text: str) -> str:
    if not is_safe(text) or "?" in text:
        raise ValueError(
            "should be the issuer's address, like https://login.example.com/realms/main; http:// on this machine only"
        )
    return text


def _scopes(scopes: tuple[str, ...]) -> tuple[str, ...]:
    if "openid" not in scopes:
        raise ValueError("should hold 'openid': without it there is no ID token")
    return scopes


Text = Annotated[str, Field(min_length=1, max_length=500, pattern=r"^\S(.*\S)?$")]
Claim = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^\S+$")]
Scope = Annotated[str, Field(max_length=200, pattern=r"^[!#-\[\]-~]+$")]
Domain = Annotated[str, AfterValidator(str.lower), Field(max_length=253, pattern=r"^[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*$")]
TeamName = Annotated[str, Field(pattern=f"^{TEAM_ID_PATTERN}$")]


class OidcSettings(BaseModel):
    """Who is asked, and which claims of the ID token give which role."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    issuer: Annotated[str, AfterValidator(_issuer)]
    client_id: Text
    client_secret_env: VariableName | None = None
    name: Annotated[str, Field(min_length=1, max_length=40, pattern=r"^\S(.*\S)?$")] | None = None
    scopes: Annotated[tuple[Scope, ...], Field(max_length=20), AfterValidator(_scopes)] = ("openid", "profile", "email")
    name_claim: Claim = "email"
    roles_claim: Claim = "groups"
    roles: Annotated[dict[Text, Annotated[str, one_of(*Role)]], Field(max_length=MAPPED_LIMIT)] = {}
    teams_claim: Claim | None = None
    teams: Annotated[
        dict[Text, Annotated[tuple[TeamName, ...], Field(max_length=TEAMS_LIMIT)]],
        Field(max_length=MAPPED_LIMIT),
    ] = {}
    allowed_domains: Annotated[tuple[Domain, ...], Field(max_length=100)] = ()
    groups_claim: Claim = "groups"
    allowed_groups: Annotated[tuple[Text, ...], Field(max_length=100)] = ()

    @property
    def shown_name(self) -> str:
        """What people call the provider."""
        return self.name or URL(self.issuer).host or self.issuer

    def secret(self, environment: Mapping[str, str]) -> str:
        """The client's secret; empty for a public client."""
        return environment.get(self.client_secret_env, "").strip() if self.client_secret_env else ""

    def client(self, public_url: str, environment: Mapping[str, str]) -> Client:
        """The gateway as the provider knows it; people find its console at ``public_url``."""
        return Client(
            issuer=self.issuer,
            client_id=self.client_id,
            scopes=self.scopes,
            redirect_uri=public_url.rstrip("/") + CALLBACK,
            client_secret=self.secret(environment),
        )

    def rules(self) -> ClaimRules:
        """Who is let in."""
        return ClaimRules(
            roles={value: Role(role) for value, role in self.roles.items()},
            roles_claim=self.roles_claim,
            teams=self.teams,
            teams_claim=self.teams_claim or self.roles_claim,
            name_claim=self.name_claim,
            allowed_domains=frozenset(self.allowed_domains),
            groups_claim=self.groups_claim,
            allowed_groups=frozenset(self.allowed_groups),
        )


def check_oidc(
    oidc: OidcSettings | None, public_url: str | None, environment: Mapping[str, str], *, with_console: bool
) -> Iterator[str]:
    """What is wrong with values that are good by themselves. Nothing is asked of the provider."""
    if oidc is None:
        return
    if not with_console:
        yield "admin.oidc: signs people in to the console, and admin.console is false"
    if public_url is None:
        yield (
            "admin.public_url: is missing: [admin.oidc] needs it, for the provider sends people back to it; at the "
            f"provider, {CALLBACK} behind it is the redirect address"
        )
    elif not public_url.startswith("https://") and URL(public_url).host not in LOOPBACK:
        yield "admin.public_url: should begin with https:// where people sign in by [admin.oidc]"
    if oidc.client_secret_env is not None and not oidc.secret(environment):
        yield (
            f"admin.oidc.client_secret_env: the environment has no {oidc.client_secret_env}: export it with the "
            "client's secret, or leave client_secret_env out for a public client"
        )
    yield from _check_roles(oidc)
    if find_spec("joserfc") is None:
        yield f"admin.oidc: joserfc is not installed: {PROGRAM.install('oidc')}, or leave [admin.oidc] out"


def _check_roles(oidc: OidcSettings) -> Iterator[str]:
    if not oidc.roles:
        yield (
            f"admin.oidc.roles: is missing, and nobody could sign in: give values of the claim {oidc.roles_claim!r} "
            'a role, like { operators = "admin" }'
        )
    has_teams, needs_teams = bool(oidc.teams or oidc.teams_claim), Role.TEAM_ADMIN in oidc.roles.values()
    if needs_teams and not has_teams:
        yield (
            'admin.oidc.teams: is missing: a "team_admin" has teams; give values of a claim their teams, like '
            '{ research-leads = ["research"] }, or name a teams_claim that holds them'
        )
    elif has_teams and oidc.roles and not needs_teams:
        yield 'admin.oidc.teams: goes with the role "team_admin" only, and no value of admin.oidc.roles has it'
