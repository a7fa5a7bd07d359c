"""Tokens of Google Cloud, by Google's own library: for a file of credentials, or from the metadata server.

A file may be a service account's key, or say how a workload's identity is exchanged. The library is imported where a
provider asks for it (``lightmeter[google]``).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC
from pathlib import Path
from typing import Any

from proxy.upstream.auth.auth import Token

TIMEOUT_S = 10
FILE_VARIABLE = "GOOGLE_APPLICATION_CREDENTIALS"


@dataclass(frozen=True, slots=True)
class Google:
    """What is asked for, and the file that says by whom; without one, the machine's own account asks."""

    scope: str
    credentials_file: str = ""

    @property
    def file(self) -> str:
        """The file, which the environment may name as well."""
        return self.credentials_file or os.environ.get(FILE_VARIABLE, "")

    @property
    def advice(self) -> str:
        """What to look at where no token can be had."""
        if self.file:
            return f"Check {self.file}, that its account is enabled, and auth.scope."
        return "Check that this machine has a service account, or name a file in auth.credentials_file."

    def fetch(self) -> Token:
        """A new token; blocks. Raises what the library does."""
        # Who does not ask for it need not have it.
        from google.auth import compute_engine  # noqa: PLC0415
        from google.auth.transport.requests import Request  # noqa: PLC0415

        library_request = Request()

        def request(url: str, method: str = "GET", timeout: float | None = None, **more: Any) -> Any:
            return library_request(url, method=method, timeout=min(timeout or TIMEOUT_S, TIMEOUT_S), **more)

        if self.file:
            info = json.loads(Path(self.file).read_text(encoding="utf-8"))
            credentials = _of_file(info, [self.scope])
        else:
            of_the_machine: Callable[..., Any] = compute_engine.Credentials
            credentials = of_the_machine(scopes=[self.scope])
        credentials.refresh(request)
        if not credentials.token or credentials.expiry is None:
            raise ValueError("Google answered without a token that has an end")
        return Token(credentials.token, credentials.expiry.replace(tzinfo=UTC).timestamp())


def _of_file(info: dict[str, Any], scopes: list[str]) -> Any:
    import google.auth  # noqa: PLC0415 - see above
    from google.auth import identity_pool  # noqa: PLC0415

    source = info.get("credential_source", {})
    if info.get("type") == "external_account" and not {"environment_id", "executable"} & source.keys():
        # What reads every kind of file asks another service of Google's for the project, too.
        of_a_workload: Callable[..., Any] = identity_pool.Credentials.from_info
        return of_a_workload(info, scopes=scopes)
    load: Callable[..., tuple[Any, str | None]] = google.auth.load_credentials_from_dict
    return load(info, scopes=scopes)[0]
