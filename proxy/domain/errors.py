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
    """An error that has an answer on the public wire.

    ``status`` is the HTTP status, ``code`` the stable word that programs may compare, ``retryable`` whether the same
    request may succeed later without being changed.
    """

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"
    type: ClassVar[str] = "api_error"
    blame: ClassVar[Blame] = Blame.GATEWAY
    retryable: ClassVar[bool] = False

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


class InvalidRequest(ProxyError):
    """The request does not say what it should; ``param`` names the field."""

    status = 400
    code = "invalid_request"
    type = "invalid_request_error"
    blame = Blame.CLIENT


class UnknownParameter(InvalidRequest):
    """A field that nobody knows."""

    code = "unknown_parameter"


class InvalidApiKey(ProxyError):
    """The key is missing, malformed, unknown, revoked or expired."""

    status = 401
    code = "invalid_api_key"
    type = "invalid_request_error"
    blame = Blame.CLIENT

    def headers(self) -> dict[str, str]:
        """Name the scheme, as RFC 9110 section 11.6.1 asks of every 401."""
        return {**super().headers(), "WWW-Authenticate": "Bearer"}


class ModelNotAllowed(ProxyError):
    """The key is good, but not for this model."""

    status = 403
    code = "model_not_allowed"
    type = "invalid_request_error"
    blame = Blame.CLIENT


class RoleNotAllowed(ProxyError):
    """The admin token is good, but its role may not do this."""

    status = 403
    code = "role_not_allowed"
    type = "invalid_request_error"
    blame = Blame.CLIENT


class ModelNotFound(ProxyError):
    """No such model is configured."""

    status = 404
    code = "model_not_found"
    type = "invalid_request_error"
    blame = Blame.CLIENT


class NotFound(ProxyError):
    """No such route, or no such thing behind it."""

    status = 404
    code = "not_found"
    type = "invalid_request_error"
    blame = Blame.CLIENT


class MethodNotAllowed(ProxyError):
    """The route exists, the method does not."""

    status = 405
    code = "method_not_allowed"
    type = "invalid_request_error"
    blame = Blame.CLIENT

    def __init__(self, message: str, *, allow: str) -> None:
        """Keep the methods that are allowed, for the ``Allow`` header (RFC 9110 section 15.5.6)."""
        super().__init__(message)
        self.allow = allow

    def headers(self) -> dict[str, str]:
        """Tell what would be allowed."""
        return {**super().headers(), "Allow": self.allow}


class ClientGone(ProxyError):
    """The client has left; nobody reads the answer, which is for the log alone. The status is nginx's."""

    status = 499
    code = "client_gone"
    type = "invalid_request_error"
    blame = Blame.CLIENT

    def __init__(self) -> None:
        """There is one message only."""
        super().__init__("The client left before its answer was complete.")


class RequestTimeout(ProxyError):
    """The client took too long to send its request."""

    status = 408
    code = "request_timeout"
    type = "invalid_request_error"
    blame = Blame.CLIENT
    retryable = True


class Conflict(ProxyError):
    """The thing to be made is there already, or has changed."""

    status = 409
    code = "conflict"
    type = "invalid_request_error"
    blame = Blame.CLIENT


class IdempotencyInProgress(ProxyError):
    """The request with this Idempotency-Key is still running."""

    status = 409
    code = "idempotency_in_progress"
    type = "invalid_request_error"
    blame = Blame.CLIENT
    retryable = True

    def __init__(self) -> None:
        """Ask for a retry after two seconds: images take their time."""
        super().__init__("The request with this Idempotency-Key is still running. Try again later.", retry_after_s=2)


class IdempotencyResponseGone(ProxyError):
    """The request with this Idempotency-Key has run, and its answer is not to be had any more."""

    status = 409
    code = "idempotency_response_gone"
    type = "invalid_request_error"
    blame = Blame.CLIENT

    def __init__(self) -> None:
        """There is one message only."""
        super().__init__(
            "The request with this Idempotency-Key has run before, and its answer was not kept. "
            "To have the images made again, and charged again, send another key."
        )


class IdempotencyMismatch(ProxyError):
    """The Idempotency-Key belongs to another request."""

    status = 422
    code = "idempotency_mismatch"
    type = "invalid_request_error"
    blame = Blame.CLIENT

    def __init__(self) -> None:
        """There is one message only."""
        super().__init__("This Idempotency-Key was sent before with another request; send a new one for each request.")


class PayloadTooLarge(ProxyError):
    """The request body is larger than this gateway reads."""

    status = 413
    code = "payload_too_large"
    type = "invalid_request_error"
    blame = Blame.CLIENT


class UnsupportedMediaType(ProxyError):
    """The request body is not of a kind that the route reads."""

    status = 415
    code = "unsupported_media_type"
    type = "invalid_request_error"
    blame = Blame.CLIENT


class HeadersTooLarge(ProxyError):
    """The request line or the headers are larger than this gateway reads."""

    status = 431
    code = "headers_too_large"
    type = "invalid_request_error"
    blame = Blame.CLIENT

    def __init__(self) -> None:
        """There is one message only."""
        super().__init__("The request's first line or a header is too long, or there are too many headers.")


class ExpectationFailed(ProxyError):
    """The client expects what this gateway does not do."""

    status = 417
    code = "expectation_failed"
    type = "invalid_request_error"
    blame = Blame.CLIENT

    def __init__(self) -> None:
        """There is one message only."""
        super().__init__("The header 'Expect' should be '100-continue', or be left out.")


class InsufficientQuota(ProxyError):
    """The request costs more than what is left."""

    status = 429
    code = "insufficient_quota"
    type = "insufficient_quota"
    blame = Blame.CLIENT


class RateLimitExceeded(ProxyError):
    """Too many requests, images or concurrent requests for the pace of the key or of its team.

    ``pace_headers`` tell how the paces stand.
    """

    status = 429
    code = "rate_limit_exceeded"
    type = "rate_limit_error"
    blame = Blame.CLIENT
    retryable = True

    def __init__(self, message: str, *, retry_after_s: int | None, pace_headers: Mapping[str, str]) -> None:
        """``retry_after_s`` None: no waiting helps."""
        super().__init__(message, retry_after_s=retry_after_s)
        self.pace_headers = pace_headers

    def headers(self) -> dict[str, str]:
        """How the paces stand, and whether to try again."""
        headers = {**super().headers(), **self.pace_headers}
        if self.retry_after_s is None:
            headers["x-should-retry"] = "false"
        return headers


# --- The provider's --------------------------------------------------------------------------------------------------


class ProviderRefusal(ProxyError):
    """The provider refused the content of the request; its own status, code and message, cleaned, are passed on."""

    status = 400
    code = "provider_refusal"
    type = "invalid_request_error"
    blame = Blame.CLIENT

    def __init__(self, message: str, *, provider_status: int, provider_code: str | None, param: str | None) -> None:
        """Keep the provider's own status (400 to 499), code and parameter."""
        super().__init__(message, param=param)
        self.provider_status = provider_status
        self.provider_code = provider_code

    @property
    def wire_status(self) -> int:
        """The provider's own status."""
        return self.provider_status

    @property
    def wire_code(self) -> str | None:
        """The provider's own code."""
        return self.provider_code or self.code


class NothingGenerated(ProviderRefusal):
    """The provider answered with a 2xx that says why there is no image in it."""

    def __init__(self, message: str, *, reason: str) -> None:
        """``reason`` is the provider's word for it."""
        is_word = len(reason) <= CODE_LENGTH_LIMIT and reason.isascii() and reason.replace("_", "").isalnum()
        code = reason.lower() if is_word else None
        super().__init__(message, provider_status=400, provider_code=code, param=None)


class UpstreamRateLimit(ProxyError):
    """The provider's own 429."""

    status = 429
    code = "upstream_rate_limit"
    type = "rate_limit_error"
    blame = Blame.PROVIDER
    retryable = True


class UpstreamError(ProxyError):
    """The provider failed, or answered what cannot be an answer."""

    status = 502
    code = "upstream_error"
    type = "upstream_error"
    blame = Blame.PROVIDER
    retryable = True


class UpstreamUncertain(UpstreamError):
    """The provider may have made images, and nobody has them: an SDK's own retry would be made, and paid for, again."""

    retryable = False


class UpstreamTruncated(UpstreamError):
    """The answer broke off after complete images, which are charged: an SDK's own retry would cost more."""

    retryable = False


class UpstreamUnreachable(UpstreamError):
    """No connection to the provider could be had; nothing was sent."""


class NoConnectionLeft(UpstreamUnreachable):
    """This gateway has no connection left for the provider, which was not asked and is not at fault."""

    status = 503
    code = "upstream_busy"
    type = "service_unavailable"
    blame = Blame.OPERATOR

    def __init__(self, message: str) -> None:
        """Ask for a retry after one second."""
        super().__init__(message, retry_after_s=1)


class UpstreamMisconfigured(UpstreamError):
    """The provider refused the gateway itself (its key, its address): the operator's to mend, not the client's."""

    blame = Blame.OPERATOR
    retryable = False


class UpstreamTimeout(ProxyError):
    """The provider took too long, and may still be at work: see ``UpstreamUncertain``."""

    status = 504
    code = "upstream_timeout"
    type = "upstream_error"
    blame = Blame.PROVIDER
    retryable = False


# --- The operator's --------------------------------------------------------------------------------------------------


class StoreUnavailable(ProxyError):
    """Redis cannot be asked; the provider was not called."""

    status = 503
    code = "store_unavailable"
    type = "service_unavailable"
    blame = Blame.OPERATOR
    retryable = True

    def __init__(self, *, may_have_happened: bool = False, refusal: str = "") -> None:
        """Ask for a retry after one second. ``may_have_happened`` is true where only the answer was lost.

        ``refusal`` is the error that the store answered with, where it did answer; clients never see it.
        """
        super().__init__("The quota store cannot be reached; nothing was charged. Try again.", retry_after_s=1)
        self.may_have_happened = may_have_happened
        self.refusal = refusal


class StoreBusy(StoreUnavailable):
    """Others use every connection for reading; the store itself may be well."""

    def __init__(self) -> None:
        """Ask for a retry after one second."""
        super().__init__()
        self.message = "Too many others read from the quota store now. Try again."
        self.args = (self.message,)


class JournalUnavailable(StoreUnavailable):
    """A settlement could not be kept, should Redis go away; the provider was not called."""

    def __init__(self) -> None:
        """Ask for a retry after five seconds."""
        super().__init__()
        self.message = "This gateway cannot write its journal; nothing was charged. Try again."
        self.args = (self.message,)
        self.retry_after_s = 5


class UploadsUnavailable(StoreUnavailable):
    """The folder for uploads takes no more; nothing was reserved."""

    def __init__(self) -> None:
        """Ask for a retry after ten seconds: other uploads make room when they end."""
        super().__init__()
        self.message = "This gateway has no room for uploads now; nothing was charged. Try again."
        self.args = (self.message,)
        self.retry_after_s = 10


class BodiesUnavailable(StoreUnavailable):
    """Others' large requests, or those of the same key, take all the memory there is for them; nothing was reserved."""

    def __init__(self) -> None:
        """Ask for a retry after five seconds: others make room when they end."""
        super().__init__()
        self.message = "This gateway has no memory for another large request now; nothing was charged. Try again."
        self.args = (self.message,)
        self.retry_after_s = 5


class TooManyConnections(ProxyError):
    """This gateway has as many connections as it may have, and all of them are at work."""

    status = 503
    code = "too_many_connections"
    type = "service_unavailable"
    blame = Blame.OPERATOR
    retryable = True

    def __init__(self) -> None:
        """Ask for a retry after one second."""
        super().__init__(
            "This gateway has no room for another connection; nothing was charged. Try again.", retry_after_s=1
        )


class ShuttingDown(ProxyError):
    """This process is going away; another one takes the retry."""

    status = 503
    code = "shutting_down"
    type = "service_unavailable"
    blame = Blame.OPERATOR
    retryable = True

    def __init__(self) -> None:
        """Ask for a retry after one second."""
        super().__init__("This gateway is shutting down; nothing was charged. Try again.", retry_after_s=1)
