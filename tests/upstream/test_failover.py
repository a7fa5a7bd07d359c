from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from proxy.domain.errors import (
    ClientGone,
    InvalidRequest,
    NothingGenerated,
    ProviderRefusal,
    UpstreamError,
    UpstreamMisconfigured,
    UpstreamRateLimit,
    UpstreamTimeout,
    UpstreamTruncated,
)
from proxy.domain.errors import UpstreamUnreachable as Unreachable
from proxy.upstream.breaker import Result
from proxy.upstream.failover import result_of, why_again
from proxy.upstream.provider import Provider

CAREFUL = Provider("acme", "openai", "http://127.0.0.1")
TRUSTING = replace(CAREFUL, retry_bad_gateway=True, retry_late_first_byte=True)
REFUSAL = ProviderRefusal("no", provider_status=400, provider_code=None, param=None)


@pytest.mark.parametrize(
    ("error", "status", "careful", "trusting", "result"),
    [
        (Unreachable("x"), 0, "unreachable", "unreachable", Result.UNREACHABLE),
        (UpstreamRateLimit("x"), 429, "rate_limited", "rate_limited", Result.RATE_LIMITED),
        (UpstreamError("x"), 503, "unavailable", "unavailable", Result.FAILED),
        (UpstreamError("x"), 502, None, "bad_gateway", Result.FAILED),
        (UpstreamTimeout("x"), 0, None, "late_first_byte", Result.FAILED),
        (UpstreamTimeout("x"), 504, None, None, Result.FAILED),
        (UpstreamTimeout("x"), 200, None, None, Result.FAILED),
        (UpstreamError("x"), 0, None, None, Result.FAILED),
        (UpstreamError("x"), 500, None, None, Result.FAILED),
        (REFUSAL, 400, None, None, Result.OK),
        (ClientGone(), 0, None, None, Result.NEITHER),
        (ClientGone(), 503, None, None, Result.NEITHER),
        (asyncio.CancelledError(), 503, None, None, Result.NEITHER),
        (RuntimeError(), 0, None, None, Result.NEITHER),
        (InvalidRequest("x"), 0, None, None, Result.NEITHER),
        (InvalidRequest("x"), 200, None, None, Result.NEITHER),
        (UpstreamMisconfigured("x"), 401, None, None, Result.FAILED),
        (UpstreamTruncated("x"), 200, None, None, Result.FAILED),
        (NothingGenerated("x", reason="SAFETY"), 200, None, None, Result.OK),
        (ClientGone(), 429, None, None, Result.RATE_LIMITED),
    ],
)
def test_when_another_deployment_may_be_asked(
    error: BaseException, status: int, careful: str | None, trusting: str | None, result: Result
) -> None:
    assert why_again(error, status, CAREFUL) == careful
    assert why_again(error, status, TRUSTING) == trusting
    assert result_of(error, status) is result
