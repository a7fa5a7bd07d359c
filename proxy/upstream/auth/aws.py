"""Signatures of Amazon's Signature Version 4, by Amazon's own library, and the credentials that they are made with.

The credentials come from the configuration, or from wherever the library looks for them: the environment, a profile, a
workload's identity, a container's or a machine's role. The library is imported where a provider asks for it
(``lightmeter[aws]``). See https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv.html.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from math import inf
from time import time

from typing_extensions import override

from proxy.upstream.auth.auth import Headers, Signer, Token, TokenSource

CONNECT_S, READ_S, ATTEMPTS = 5, 10, 2
FOR_GOOD_S = 10 * 365 * 86_400.0
REREAD_S = 900.0
"""What has no end, as a profile in a file, may be another one after a while."""

MACHINE_S = 60.0
"""Of a machine's credentials, which end within minutes, the library says a later end: there are new ones by then."""

OF_A_MACHINE = "iam-role"
"""How the library calls where they come from."""

# It tells of what it signs, tokens included; what it raises is told by whoever asked.
logging.getLogger("botocore").setLevel(logging.ERROR)


@dataclass(frozen=True, slots=True)
class SigV4(Signer):
    """Signs for one service in one region."""

    region: str
    service: str
    access_key: str
    secret_key: str = field(repr=False)
    session_token: str = field(repr=False, default="")

    @override
    def sign(self, url: str, content_type: str, body_sha256: str) -> Headers:
        # Who does not ask for it need not have it; ``fetch`` has imported it, in a thread of its own.
        from botocore.auth import SigV4Auth  # noqa: PLC0415
        from botocore.awsrequest import AWSRequest  # noqa: PLC0415
        from botocore.credentials import Credentials  # noqa: PLC0415

        signed = {"Content-Type": content_type, "X-Amz-Content-SHA256": body_sha256}
        request = AWSRequest("POST", url, signed)
        credentials = Credentials(self.access_key, self.secret_key, self.session_token or None)
        SigV4Auth(credentials, self.service, self.region).add_auth(request)
        # The content's type is sent by whoever sends the content.
        return {name: value for name, value in request.headers.items() if name != "Content-Type"}


@dataclass(frozen=True, slots=True)
class Aws(TokenSource):
    """Credentials for ``service`` in ``region``: these keys, those of a profile, or those that the library finds."""

    region: str
    service: str
    profile: str = ""
    access_key: str = ""
    secret_key: str = field(repr=False, default="")
    session_token: str = field(repr=False, default="")

    @property
    @override
    def advice(self) -> str:
        if self.profile:
            return f"Check the profile {self.profile} in AWS_CONFIG_FILE and AWS_SHARED_CREDENTIALS_FILE, and its role."
        return (
            "Check the role of this machine or container, or AWS_ROLE_ARN and AWS_WEB_IDENTITY_TOKEN_FILE of the "
            "workload, or name keys in auth.access_key_env and secret_key_env."
        )

    @override
    def fetch(self) -> Token:
        import botocore.auth  # noqa: PLC0415 - see above
        import botocore.session  # noqa: PLC0415
        from botocore.config import Config  # noqa: PLC0415

        if self.access_key:
            return self._token(self.access_key, self.secret_key, self.session_token, time() + FOR_GOOD_S)
        # Anew each time: what the library keeps would be given again for as long as it is good.
        session = botocore.session.Session(profile=self.profile or None)
        session.set_config_variable("region", self.region)
        session.set_default_client_config(
            Config(connect_timeout=CONNECT_S, read_timeout=READ_S, retries={"total_max_attempts": ATTEMPTS})
        )
        found = session.get_credentials()
        if found is None:
            raise ValueError("no credentials were found")
        keys = found.get_frozen_credentials()
        ends = vars(found).get("_expiry_time")
        if ends is None:
            expires_s, again_s = time() + FOR_GOOD_S, REREAD_S
        else:
            expires_s, again_s = ends.timestamp(), MACHINE_S if found.method == OF_A_MACHINE else inf
        return self._token(keys.access_key, keys.secret_key, keys.token or "", expires_s, again_s)

    def _token(
        self, access_key: str, secret_key: str, session_token: str, expires_s: float, again_s: float = inf
    ) -> Token:
        signer = SigV4(self.region, self.service, access_key, secret_key, session_token)
        return Token(secret_key, expires_s, signer, (session_token,), again_s)
