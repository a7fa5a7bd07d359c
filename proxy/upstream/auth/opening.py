"""From what is configured to what requests carry."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from proxy.upstream.auth.auth import NO_CREDENTIALS, Auth, ChangingCredentials, Credentials, Headers, credentials_of
from proxy.upstream.auth.secret_file import SecretFile
from proxy.upstream.auth.tokens import Tokens


def open_auth(
    provider: str, auth: Auth, by_dialect: Callable[[str], Headers]
) -> tuple[Credentials, ChangingCredentials | None]:
    """What every request to ``provider`` carries, and what each has to ask for anew."""
    if auth.key_file:
        make = partial(credentials_of, auth, by_dialect=by_dialect)
        return NO_CREDENTIALS, SecretFile(provider, Path(auth.key_file), make)
    if auth.token is not None:
        return NO_CREDENTIALS, Tokens(provider, auth.token)
    return credentials_of(auth, auth.key, by_dialect), None
