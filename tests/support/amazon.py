"""What Amazon does with a signed request: it signs it once more, and compares.

See https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html.
"""

from __future__ import annotations

import hmac
import json
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from urllib.parse import quote

from tests.support.recording_provider import Answered, Asked

SKEW = timedelta(minutes=5)
PICTURE = "iVBORw0KGgoAAAANSUhEUgAAAEAAAABACAIAAAAlC+aJAAAAC0lEQVR4nGNgQAUAABAAATm9j2UAAAAASUVORK5CYII="
IMAGE = {"seeds": [2130420379], "finish_reasons": [None], "images": [PICTURE]}
_authorization = re.compile(
    r"AWS4-HMAC-SHA256 Credential=([^/]+)/(\d{8})/([^/]+)/([^/]+)/aws4_request, "
    r"SignedHeaders=([a-z0-9;-]+), Signature=([0-9a-f]{64})"
)


@dataclass
class Amazon:
    """Accounts by their access keys, each with its secret and its session's token."""

    accounts: dict[str, tuple[str, str]]
    region: str = "us-west-2"
    service: str = "bedrock"
    clock_is_off: timedelta = timedelta()
    document: object = field(default_factory=lambda: IMAGE)
    refused: list[str] = field(default_factory=list)

    def answer(self, asked: Asked) -> Answered:
        """The document, or why it is refused."""
        reason = self.mistake(asked)
        if reason is None:
            return Answered(body=json.dumps(self.document).encode())
        self.refused.append(reason)
        # What Amazon says repeats what was signed.
        message = f"{reason}: {asked.headers['X-Amz-Security-Token']} {asked.headers['Authorization']}"
        body = json.dumps({"message": message}).encode()
        return Answered(403, body, {"x-amzn-ErrorType": "InvalidSignatureException:http://internal.amazon.com/"})

    def mistake(self, asked: Asked) -> str | None:
        """Why a request is not let in; None where it is."""
        match = _authorization.fullmatch(str(asked.headers["Authorization"]))
        if match is None or match[1] not in self.accounts:
            return "the key is unknown"
        access_key, day, region, service, signed, signature = match.groups()
        secret, token = self.accounts[access_key]
        at, names = str(asked.headers["X-Amz-Date"]), signed.split(";")
        now = datetime.now(UTC) + self.clock_is_off
        amazons = {name.lower() for name in asked.headers if name.lower().startswith("x-amz-")}
        tests = {
            "signature expired": abs(datetime.strptime(at, "%Y%m%dT%H%M%S%z") - now) <= SKEW and day == at[:8],
            "the scope is another one": (region, service) == (self.region, self.service),
            "the session's token is another one": (asked.headers["X-Amz-Security-Token"] or "") == token,
            "not all is signed": {"host", "content-type"} | amazons <= set(names),
        }
        text = f"AWS4-HMAC-SHA256\n{at}\n{day}/{region}/{service}/aws4_request\n{_hash_of(asked, names)}"
        key = f"AWS4{secret}".encode()
        for part in (day, region, service, "aws4_request"):
            key = hmac.digest(key, part.encode(), "sha256")
        tests["the signature does not match"] = hmac.digest(key, text.encode(), "sha256").hex() == signature
        return next((reason for reason, is_passed in tests.items() if not is_passed), None)


def _hash_of(asked: Asked, names: list[str]) -> str:
    """Of the canonical request, made of what has arrived."""
    path, _, query = asked.target.partition("?")
    headers = [f"{name}:{' '.join(str(asked.headers[name]).split())}" for name in names]
    canonical = [
        *(asked.method, quote(path, safe="/-_.~"), "&".join(sorted(query.split("&")))),
        *(*headers, "", ";".join(names), sha256(asked.body).hexdigest()),
    ]
    return sha256("\n".join(canonical).encode()).hexdigest()
