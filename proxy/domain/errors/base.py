"""One closed family of errors: what went wrong, whose fault it is, whether trying again can help, and the wire form.

Errors of libraries are translated into these at the edge that meets them. The wire form is OpenAI's
(https://platform.openai.com/docs/guides/error-codes): ``{"error": {"message", "type", "param", "code"}}``.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, ClassVar

RETRIED_BY_SDKS = frozenset({408, 409, 429})
SERVER_ERROR = 500
CODE_LENGTH_LIMIT = 64
"""Of a provider's own word for what it refuses."""


class Blame(StrEnum):
    """Who has to do something about an error."""

    CLIENT = "client"
    PROVIDER = "provider"
    OPERATOR = "operator"
    GATEWAY = "gateway"


class ProxyError(Exception):
    """An error that has an answer on the public API.

    ``status`` is the HTTP status, ``code`` the stable word that programs may compare, ``retryable`` whether the same
    request may succeed later without being changed.
    """

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"
    type: ClassVar[str] = "api_error"
    blame: ClassVar[Blame] = Blame.GATEWAY
    retryable: ClassVar[bool] = False
    provider_error: str = ""
    """The provider's own word for it, where it has one; for the log alone."""
    reported_status: int = 0
    """The status that it would have had, of an error that the provider reports within a 2xx: nothing was made."""

    def __init__(self, message: str, *, param: str | None = None, retry_after_s: int | None = None) -> None:
        """Keep the message for the client, the parameter it is about, and the seconds to wait before a retry."""
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after_s = retry_after_s

    @property
    def wire_status(self) -> int:
        """The HTTP status of this one error."""
        return self.status

    @property
    def wire_code(self) -> str | None:
        """The ``code`` of this one error."""
        return self.code

    def headers(self) -> dict[str, str]:
        """Response headers that belong to the error.

        OpenAI's SDKs try again after some statuses, whatever the body says, unless ``x-should-retry`` forbids it.
        """
        headers: dict[str, str] = {}
        if self.retry_after_s is not None:
            headers["Retry-After"] = str(self.retry_after_s)
        if not self.retryable and (self.wire_status in RETRIED_BY_SDKS or self.wire_status >= SERVER_ERROR):
            headers["x-should-retry"] = "false"
        return headers

    def body(self) -> dict[str, Any]:
        """The error in OpenAI's form, with all four members."""
        error: Mapping[str, Any] = {
            "message": self.message,
            "type": self.type,
            "param": self.param,
            "code": self.wire_code,
        }
        return {"error": dict(error)}


class InternalError(ProxyError):
    """A fault of Lightmeter itself; its details are in the log only."""


# --- The client's to mend --------------------------------------------------------------------------------------------
