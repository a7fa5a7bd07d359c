"""Errors that a provider answers with, or causes by not answering."""

from __future__ import annotations

from proxy.domain.errors.base import CODE_LENGTH_LIMIT, Blame, ProxyError


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


class TaskUnknown(UpstreamUncertain):
    """The provider does not know a task that it had accepted: what became of it, nobody can say."""

    def __init__(self) -> None:
        """There is one message only."""
        super().__init__("The provider no longer knows the task that it had accepted; nothing was charged.")


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


class NoCredentials(UpstreamMisconfigured):
    """This gateway has nothing by which the provider would let it in, so nothing was sent.

    Whoever looks for it has told the operator why.
    """

    def __init__(self) -> None:
        """There is one message only."""
        super().__init__(
            "This gateway has no credentials for the provider now; nothing was charged. The operator has been told."
        )


class ProviderOutOfCredit(UpstreamMisconfigured):
    """The provider refuses the gateway's account: no credit or quota is left, or it may not be used from here.

    Nothing was made, nothing will be until the operator has seen to it, and no client has to know why.
    """

    def __init__(self) -> None:
        """There is one message only."""
        super().__init__(
            "The provider does not serve this gateway now; nothing was charged. The operator has been told."
        )


class UpstreamTimeout(ProxyError):
    """The provider took too long, and may still be at work: see ``UpstreamUncertain``."""

    status = 504
    code = "upstream_timeout"
    type = "upstream_error"
    blame = Blame.PROVIDER
    retryable = False


# --- The operator's --------------------------------------------------------------------------------------------------
