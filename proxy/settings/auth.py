"""``auth`` of one of the ``[[providers]]``: by what the provider lets this gateway in."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from proxy.settings.sections import Section
from proxy.settings.values import VariableName, one_of
from proxy.telemetry.program import PROGRAM
from proxy.upstream.auth.auth import Auth, Place, TokenSource
from proxy.upstream.auth.aws import Aws
from proxy.upstream.auth.entra import Entra
from proxy.upstream.auth.google import Google
from proxy.upstream.auth.secret_file import UnusableSecret, read_secret

OF_THE_CONNECTION = frozenset(
    {
        "accept", "accept-encoding", "connection", "content-encoding", "content-length", "content-type", "expect",
        "host", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade",
    }
)  # fmt: skip
"""Headers that say how a request is sent: a key has no place in them."""

_region_name = re.compile(r"[a-z]{2,}(?:-[a-z]+)+-[0-9]{1,2}")
_word = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")


def _header_word(text: str) -> str:
    if not _word.fullmatch(text):
        raise ValueError("should be one word of letters, digits and -, like api-key or Key")
    return text


def _region(text: str) -> str:
    if not _region_name.fullmatch(text):
        raise ValueError("should be a region like us-west-2")
    return text


FilePath = Annotated[str, Field(min_length=1, max_length=4_096)]
Word = Annotated[str, Field(max_length=200), AfterValidator(_header_word)]

_KEY = "the variable with the key, key_env, or the file with it, key_file"
_NEEDED: Mapping[str, Mapping[str, str]] = {
    "bearer": {},
    "header": {"name": "the header that carries the key, like api-key"},
    "query": {"name": "the query's parameter that carries the key, like key"},
    "file": {"path": "the file with the key"},
    "none": {},
    "entra": {},
    "google": {},
    "aws": {"region": "the region that the provider's address is in, like us-west-2"},
}
"""The types, each with the settings that it cannot be without."""

_ALLOWED: Mapping[str, frozenset[str]] = {
    "bearer": frozenset({"key_env", "key_file"}),
    "header": frozenset({"name", "scheme", "key_env", "key_file"}),
    "query": frozenset({"name", "key_env", "key_file"}),
    "file": frozenset({"path"}),
    "none": frozenset(),
    "entra": frozenset({"scope", "tenant_id", "client_id", "client_secret_env"}),
    "google": frozenset({"scope", "credentials_file"}),
    "aws": frozenset({"region", "service", "access_key_env", "secret_key_env", "session_token_env", "profile"}),
}
_SECRETS = ("key_env", "client_secret_env", "access_key_env", "secret_key_env", "session_token_env")
"""The settings that name a variable of the environment."""

LIBRARIES = {
    "entra": ("azure.identity", "azure"),
    "google": ("google.auth.transport.requests", "google"),
    "aws": ("botocore.auth", "aws"),
}
"""What a type needs: the module, and the extra that brings it."""

DEFAULT_SCOPES = {
    "entra": "https://cognitiveservices.azure.com/.default",
    "google": "https://www.googleapis.com/auth/cloud-platform",
}


AWS_SERVICE = "bedrock"


class AuthSettings(Section):
    """How a provider is shown who asks. Secrets stand in variables of the environment, or in files."""

    type: Annotated[str, one_of(*_NEEDED)]
    name: Word | None = None
    scheme: Word | None = None
    key_env: VariableName | None = None
    key_file: FilePath | None = None
    path: FilePath | None = None
    scope: Annotated[str, Field(min_length=1, max_length=1_000)] | None = None
    tenant_id: Word | None = None
    client_id: Word | None = None
    client_secret_env: VariableName | None = None
    credentials_file: FilePath | None = None
    region: Annotated[str, Field(max_length=100), AfterValidator(_region)] | None = None
    service: Word | None = None
    access_key_env: VariableName | None = None
    secret_key_env: VariableName | None = None
    session_token_env: VariableName | None = None
    profile: Annotated[str, Field(min_length=1, max_length=200)] | None = None

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        given = self.model_fields_set - {"type"}
        if stray := sorted(given - _ALLOWED[self.type]):
            allowed = ", ".join(sorted(_ALLOWED[self.type])) or "nothing else"
            raise ValueError(f"{stray[0]} does not belong to the type {self.type!r}, which takes {allowed}")
        for name, meaning in _NEEDED[self.type].items():
            if getattr(self, name) is None:
                raise ValueError(f"the type {self.type!r} needs {name}: {meaning}")
        if "key_env" in _ALLOWED[self.type] and (self.key_env is None) == (self.key_file is None):
            raise ValueError(f"the type {self.type!r} needs one of two: {_KEY}")
        if self.client_secret_env is not None and (self.tenant_id is None or self.client_id is None):
            raise ValueError("client_secret_env is the secret of a client_id at a tenant_id: give these two as well")
        if (self.access_key_env is None) != (self.secret_key_env is None):
            raise ValueError("access_key_env and secret_key_env belong together: give both, or neither")
        if self.access_key_env is None and self.session_token_env is not None:
            raise ValueError("session_token_env belongs to access_key_env and secret_key_env: give these two as well")
        if self.access_key_env is not None and self.profile is not None:
            raise ValueError("profile is given beside access_key_env: leave one of them out")
        if self.type == "header" and self.name is not None and self.name.lower() in OF_THE_CONNECTION:
            raise ValueError(f"name is {self.name!r}: it says how a request is sent; name the header of the key")
        return self

    @property
    def secret_file(self) -> str:
        """The file that holds the key, where one does."""
        return self.key_file or self.path or ""

    def secret_texts(self, environment: Mapping[str, str]) -> Iterator[str]:
        """What nobody may read in a log or an error. What is in a file is known when it is read."""
        for variable in (self.key_env, self.client_secret_env, self.secret_key_env, self.session_token_env):
            if variable is not None:
                yield environment.get(variable, "").strip()

    def to_auth(self, environment: Mapping[str, str]) -> Auth:
        """The same with its key, where that is in the environment."""
        if self.type in LIBRARIES:
            return Auth(token=self._to_source(environment), signs=self.type == "aws")
        place = {"header": Place.HEADER, "bearer": Place.HEADER, "query": Place.QUERY}.get(self.type, Place.DIALECT)
        return Auth(
            place=place,
            name=self.name or "Authorization",
            scheme="Bearer" if self.type == "bearer" else self.scheme or "",
            key=environment.get(self.key_env, "").strip() if self.key_env else "",
            key_file=self.secret_file,
        )

    def _to_source(self, environment: Mapping[str, str]) -> TokenSource:
        def read(variable: str | None) -> str:
            return environment.get(variable, "").strip() if variable else ""

        if self.type == "aws":
            keys = (self.access_key_env, self.secret_key_env, self.session_token_env)
            return Aws(self.region or "", self.service or AWS_SERVICE, self.profile or "", *map(read, keys))
        scope = self.scope or DEFAULT_SCOPES[self.type]
        if self.type == "google":
            return Google(scope, self.credentials_file or "")
        return Entra(scope, self.tenant_id or "", self.client_id or "", read(self.client_secret_env))

    def mistakes(self, provider: str, environment: Mapping[str, str]) -> Iterator[str]:
        """What is wrong with the variables and files that it names, each led by the setting."""
        for setting in _SECRETS:
            if (variable := getattr(self, setting)) is not None:
                yield from check_key(variable, provider, environment, setting)
        module, extra = LIBRARIES.get(self.type, ("", ""))
        if module and not _is_installed(module):
            yield f"type: {self.type!r} needs a library of its own: {PROGRAM.install(extra)}"
        if self.credentials_file is not None and not Path(self.credentials_file).is_file():
            yield f"credentials_file: there is no file {self.credentials_file}; on Google Cloud it may be left out"
        if self.secret_file:
            try:
                read_secret(Path(self.secret_file))
            except UnusableSecret as error:
                yield f"{'path' if self.path else 'key_file'}: {self.secret_file} {error}"


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False


_key_itself = re.compile(r"(?=.*[a-z])(?=.*[0-9])\w{20,}")
"""Some providers' keys would do as the name of a variable."""


def check_key(variable: str, provider: str, environment: Mapping[str, str], setting: str) -> Iterator[str]:
    """What is wrong with the key that the environment has for ``provider`` in ``variable``, which ``setting`` names."""
    key = environment.get(variable, "").strip()
    if not (key.isascii() and key.isprintable()):
        yield f"{setting}: {variable} holds what cannot be in a header"
    elif not key and _key_itself.fullmatch(variable):
        yield (
            f"{setting}: the environment has no variable of this name, which is not repeated, for it may be the "
            f"key itself: export the key of provider {provider!r} in a variable, and give that one's name"
        )
    elif not key:
        yield f"{setting}: the environment has no {variable}: export it with the key of provider {provider!r}"
