"""OpenAI's images API (https://platform.openai.com/docs/api-reference/images), and all who speak as it does."""

from __future__ import annotations

from collections.abc import Mapping

import orjson

from proxy.domain.catalog import Model
from proxy.domain.errors import ProxyError
from proxy.domain.image_request import ImageRequest
from proxy.upstream.failures import ErrorReport, error_for_status


class OpenAIDialect:
    """See ``Dialect``."""

    def authorize(self, api_key: str) -> Mapping[str, str]:
        """A bearer token."""
        return {"Authorization": f"Bearer {api_key}"} if api_key else {}

    def generations_path(self, _model: Model) -> str:
        """The same for every model."""
        return "/images/generations"

    def write_generation(self, request: ImageRequest, model: Model) -> bytes:
        """The fields keep their names; the model takes the provider's."""
        listed = {name: value for name, value in request.fields.items() if name in model.parameters}
        return orjson.dumps({"model": model.upstream_model, "prompt": request.prompt, **listed})

    def read_refusal(self, status: int, headers: Mapping[str, str], body: bytes) -> ProxyError:
        """Errors come as ``{"error": {"message", "type", "param", "code"}}``."""
        return error_for_status(status, headers, _read_report(body))


def _read_report(body: bytes) -> ErrorReport:
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        return ErrorReport()
    error = answer.get("error") if isinstance(answer, dict) else None
    if isinstance(error, str):
        return ErrorReport(message=error)
    if not isinstance(error, dict):
        return ErrorReport()
    words = {name: value for name, value in error.items() if isinstance(value, str)}
    return ErrorReport(message=words.get("message", ""), code=words.get("code"), param=words.get("param"))
