"""The section ``[traces]``: whether requests are traced, and where the traces go."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from yarl import URL

from proxy.settings.values import Name, no_boolean
from proxy.telemetry.program import PROGRAM

NEEDED = ("opentelemetry.sdk.trace", "opentelemetry.exporter.otlp.proto.http")


def _collector_url(text: str) -> str:
    try:
        url = URL(text)
    except ValueError:
        url = URL()
    if url.scheme not in ("http", "https") or not url.host or "#" in text:
        raise ValueError("should be an address like http://127.0.0.1:4318/v1/traces")
    if url.user or url.password:
        raise ValueError("should hold no password: give the collector's headers in OTEL_EXPORTER_OTLP_HEADERS")
    return text


class TracesSettings(BaseModel):
    """Traces by OpenTelemetry, sent by OTLP over HTTP. ``sample_ratio`` is of the traces that begin here."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    enabled: bool = False
    endpoint: Annotated[str, AfterValidator(_collector_url)] = "http://127.0.0.1:4318/v1/traces"
    sample_ratio: Annotated[float, BeforeValidator(no_boolean), Field(ge=0, le=1)] = 1.0
    service_name: Name = "lightmeter"


def check_traces(settings: TracesSettings) -> Iterator[str]:
    """What keeps traces from being made. Nothing is looked for where they are off."""
    if settings.enabled and not all(map(_is_installed, NEEDED)):
        yield (
            f"traces.enabled: OpenTelemetry is not installed: {PROGRAM.install('traces')}, "
            "or leave traces.enabled at false"
        )


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False
