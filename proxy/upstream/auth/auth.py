"""What is configured of how a provider lets this gateway in, and what of it every request carries."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from math import inf
from typing import Protocol

Headers = Mapping[str, str]


class TokenSource(Protocol):
    """Where tokens come from that end."""

    @property
    def advice(self) -> str:
        """What the operator should look at where none can be had."""
        ...

    def fetch(self) -> Token:
        """A new one; blocks, and raises whatever a library does."""
        ...


class Signer(Protocol):
    """Signs each request, with its body."""

    def sign(self, url: str, content_type: str, body_sha256: str) -> Headers:
        """The headers of a POST to ``url``, as it stands on the wire, of a body with this hash in hexadecimal."""
        ...


@dataclass(frozen=True, slots=True)
class Token:
    """A token, and its end in seconds since the epoch; or the key that a ``signer`` signs with.

    Nor may anybody see what else is in ``secrets``. Another one may be there after ``again_s``, in seconds.
    """

    text: str = field(repr=False)
    expires_s: float
    signer: Signer | None = None
    secrets: tuple[str, ...] = field(repr=False, default=())
    again_s: float = inf


class Place(StrEnum):
    """Where a provider looks for it."""

    DIALECT = "dialect"
    """Where all providers of its dialect do."""

    HEADER = "header"
    QUERY = "query"


@dataclass(frozen=True, slots=True)
class Auth:
    """A key, the file that holds it, or where tokens come from; and where it goes.

    ``name`` is that of the header or of the query's parameter, ``scheme`` the word before it, as ``Bearer``.
    Where it ``signs``, each request is signed with what comes from there, and carries its signature.
    """

    place: Place = Place.DIALECT
    name: str = ""
    scheme: str = ""
    key: str = field(repr=False, default="")
    key_file: str = ""
    token: TokenSource | None = None
    signs: bool = False


BY_NOTHING = Auth()


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a request carries. Nothing of it may be shown to anybody."""

    headers: Headers = field(repr=False, default_factory=dict)
    query: Mapping[str, str] = field(repr=False, default_factory=dict)
    signer: Signer | None = None


NO_CREDENTIALS = Credentials()


class ChangingCredentials(Protocol):
    """Credentials that are others after a while."""

    async def current(self) -> Credentials:
        """Those of now. Raises NoCredentials where there are none, and the operator has been told why."""
        ...

    async def close(self) -> None:
        """Let go of what looks after them."""
        ...


def credentials_of(auth: Auth, secret: str, by_dialect: Callable[[str], Headers]) -> Credentials:
    """The credentials that ``secret`` makes; none where it is empty. ``by_dialect`` gives a dialect's own headers."""
    if not secret:
        return NO_CREDENTIALS
    if auth.place is Place.DIALECT:
        return Credentials(by_dialect(secret))
    if auth.place is Place.QUERY:
        return Credentials(query={auth.name: secret})
    return Credentials({auth.name: f"{auth.scheme} {secret}" if auth.scheme else secret})
