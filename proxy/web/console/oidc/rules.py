"""Who somebody is here: claims of an ID token, and the role and the teams that they give."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from proxy.domain.api_key import TEAM_ID_PATTERN
from proxy.web.admin.roles import Administrator, Role
from proxy.web.console.oidc.refusal import NotAllowed, shown

NAME_PREFIX = "oidc:"
"""Of people's names in the audit record; no admin token's name can hold it."""

NAME_CHARACTERS_LIMIT = 100
TEAMS_LIMIT = 50
SHOWN_LIMIT = 20
ORDER = (Role.ADMIN, Role.VIEWER, Role.TEAM_ADMIN)
"""Of several roles the first is taken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimRules:
    """Who is let in. Nobody is whom no rule gives a role."""

    roles: Mapping[str, Role]
    """By values of the claim ``roles_claim``."""

    roles_claim: str = "groups"
    teams: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Of a ``team_admin``, by values of ``teams_claim``; where there are none, the claim holds the teams' ids."""

    teams_claim: str = "groups"
    name_claim: str = "email"
    allowed_domains: frozenset[str] = frozenset()
    """Of verified ``email`` addresses; empty, any."""

    groups_claim: str = "groups"
    allowed_groups: frozenset[str] = frozenset()
    """At least one of them is needed; empty, none is."""

    def admit(self, claims: Mapping[str, Any]) -> Administrator:
        """Who it is. Raises NotAllowed, which says which claim was looked at."""
        self._check_domain(claims)
        self._check_groups(claims)
        role = self._role(claims)
        teams = self._teams(claims) if role is Role.TEAM_ADMIN else frozenset()
        return Administrator(self._name(claims), role, teams)

    def _check_domain(self, claims: Mapping[str, Any]) -> None:
        if not self.allowed_domains:
            return
        email = claims.get("email")
        if not isinstance(email, str) or "@" not in email:
            raise NotAllowed(
                "The claim 'email' is looked at, for admin.oidc.allowed_domains, and holds no address: the scope "
                "'email' may be missing."
            )
        if email.rpartition("@")[2].lower() not in self.allowed_domains:
            raise NotAllowed(
                f"The claim 'email' is {shown(email)}, which is of none of the domains in admin.oidc.allowed_domains."
            )
        if claims.get("email_verified") not in (True, "true"):
            raise NotAllowed(
                f"The claim 'email_verified' does not say that the provider has verified {shown(email)}, and "
                "admin.oidc.allowed_domains goes by verified addresses only."
            )

    def _check_groups(self, claims: Mapping[str, Any]) -> None:
        if self.allowed_groups and self.allowed_groups.isdisjoint(values_of(claims, self.groups_claim)):
            raise NotAllowed(f"{_told(claims, self.groups_claim)} One of admin.oidc.allowed_groups is needed.")

    def _role(self, claims: Mapping[str, Any]) -> Role:
        given = {self.roles[value] for value in values_of(claims, self.roles_claim) if value in self.roles}
        for role in ORDER:
            if role in given:
                return role
        raise NotAllowed(f"{_told(claims, self.roles_claim)} None of it has a role in admin.oidc.roles.")

    def _teams(self, claims: Mapping[str, Any]) -> frozenset[str]:
        values = values_of(claims, self.teams_claim)
        if self.teams:
            found = {team for value in values for team in self.teams.get(value, ())}
        else:
            found = {value for value in values if re.fullmatch(TEAM_ID_PATTERN, value)}
        if not found:
            raise NotAllowed(
                f"{_told(claims, self.teams_claim)} None of it names a team, and a {Role.TEAM_ADMIN} needs one."
            )
        if len(found) > TEAMS_LIMIT:
            raise NotAllowed(
                f"The claim '{self.teams_claim}' names {len(found)} teams: a session holds {TEAMS_LIMIT} of them."
            )
        return frozenset(found)

    def _name(self, claims: Mapping[str, Any]) -> str:
        """By the claim, or else by ``sub``, which each provider gives."""
        name = claims.get(self.name_claim)
        is_unproven = self.name_claim == "email" and claims.get("email_verified") in (False, "false")
        if not isinstance(name, str) or not name.strip() or is_unproven:
            name = str(claims["sub"])
        if len(name) > NAME_CHARACTERS_LIMIT or not name.isprintable():
            raise NotAllowed(
                f"The claim '{self.name_claim}' or 'sub' is no name for the audit record: {NAME_CHARACTERS_LIMIT} "
                "printable characters are the most."
            )
        return f"{NAME_PREFIX}{name.strip()}"


def values_of(claims: Mapping[str, Any], name: str) -> list[str]:
    """The texts that the claim holds: itself, those of its list, or the names of its object.

    A ``name`` that is no claim's own is a path, as ``realm_access.roles``.
    """
    value: Any = claims
    for part in [name] if name in claims else name.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    if isinstance(value, str):
        return [value]
    return [each for each in value if isinstance(each, str)] if isinstance(value, list | Mapping) else []


def _told(claims: Mapping[str, Any], name: str) -> str:
    """What was looked at, and what was there."""
    values = values_of(claims, name)
    if values:
        more = f", and {len(values) - SHOWN_LIMIT} more" if len(values) > SHOWN_LIMIT else ""
        return f"The claim '{name}' holds {', '.join(map(shown, values[:SHOWN_LIMIT]))}{more}."
    elsewhere = claims.get("_claim_names")
    if isinstance(elsewhere, Mapping) and name in elsewhere:
        return (
            f"The claim '{name}' is too long for the ID token, and the provider leaves it out: let it send only the "
            "groups that are assigned to the application."
        )
    return f"The ID token holds no claim '{name}', or it is empty: a scope or a mapper of the provider may be missing."
