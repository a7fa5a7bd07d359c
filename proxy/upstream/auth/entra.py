"""Tokens of Microsoft Entra, by Azure's own library: for a secret, a workload's identity, or a managed identity.

The library is imported where a provider asks for it (``lightmeter[azure]``).
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, field
from typing import Any

from proxy.upstream.auth.auth import Token

CONNECT_S, READ_S, RETRIES = 5, 10, 1
# It tells of each request and its headers; what it raises is told by whoever asked.
logging.getLogger("azure").setLevel(logging.ERROR)

WORKLOAD_FILE, AUTHORITY = "AZURE_FEDERATED_TOKEN_FILE", "AZURE_AUTHORITY_HOST"


@dataclass(frozen=True, slots=True)
class Entra:
    """Who asks, and for what. Without a secret, the environment says by which identity."""

    scope: str
    tenant_id: str = ""
    client_id: str = ""
    client_secret: str = field(repr=False, default="")

    @property
    def advice(self) -> str:
        """What to look at where no token can be had."""
        if self.client_secret:
            return "Check auth.tenant_id, client_id and scope, and that the secret in client_secret_env has not ended."
        if os.environ.get(WORKLOAD_FILE):
            return f"Check the file in {WORKLOAD_FILE}, AZURE_TENANT_ID, AZURE_CLIENT_ID, and the federated credential."
        return "Check that this machine has a managed identity (auth.client_id names one of several) that may ask."

    def fetch(self) -> Token:
        """A new token; blocks. Raises what the library does."""
        import azure.identity  # noqa: PLC0415 - who does not ask for it need not have it

        limits: dict[str, Any] = {"connection_timeout": CONNECT_S, "read_timeout": READ_S, "retry_total": RETRIES}
        # Whoever names an authority of their own vouches for it.
        known: dict[str, Any] = {"disable_instance_discovery": AUTHORITY in os.environ}
        credential: (
            azure.identity.ClientSecretCredential
            | azure.identity.WorkloadIdentityCredential
            | azure.identity.ManagedIdentityCredential
        )
        # Anew each time: what the library keeps would be given again for as long as it is good.
        if self.client_secret:
            credential = azure.identity.ClientSecretCredential(
                self.tenant_id, self.client_id, self.client_secret, **limits, **known
            )
        elif os.environ.get(WORKLOAD_FILE):
            credential = azure.identity.WorkloadIdentityCredential(
                tenant_id=self.tenant_id or None, client_id=self.client_id or None, **limits, **known
            )
        else:
            credential = azure.identity.ManagedIdentityCredential(client_id=self.client_id or None, **limits)
        with credential:
            token = credential.get_token(self.scope)
        return Token(token.token, float(token.expires_on))
