"""Errors that the client can do something about: its key, its request, its quota, its patience."""

from __future__ import annotations

from collections.abc import Mapping

from proxy.domain.errors.base import Blame, ProxyError


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
    """Too many requests, images or concurrent requests for a rate limit of the key or of its team.

    ``rate_limit_headers`` say how the rate limits stand.
    """

    status = 429
    code = "rate_limit_exceeded"
    type = "rate_limit_error"
    blame = Blame.CLIENT
    retryable = True

    def __init__(self, message: str, *, retry_after_s: int | None, rate_limit_headers: Mapping[str, str]) -> None:
        """``retry_after_s`` None: no waiting helps."""
        super().__init__(message, retry_after_s=retry_after_s)
        self.rate_limit_headers = rate_limit_headers

    def headers(self) -> dict[str, str]:
        """How the rate limits stand, and whether to try again."""
        headers = {**super().headers(), **self.rate_limit_headers}
        if self.retry_after_s is None:
            headers["x-should-retry"] = "false"
        return headers


# --- The provider's --------------------------------------------------------------------------------------------------
