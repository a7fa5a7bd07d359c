"""The headers that every answer of Lightmeter has. aiohttp would add its own name and version as ``Server``."""

from __future__ import annotations

from proxy.telemetry.observation import Observation

SERVER = "lightmeter"
ANY_ORIGIN = "*"
"""In ``Access-Control-Allow-Origin``, and so in the configuration."""

ATTEMPTS = "x-lightmeter-attempts"
"""How many deployments were asked, where the model has several."""


def common_headers(observation: Observation) -> dict[str, str]:
    """For one answer."""
    headers = {"x-request-id": observation.request_id, "Server": SERVER}
    if observation.attempts is not None:
        headers[ATTEMPTS] = str(observation.attempts)
    if observation.rate_limit_headers is not None:
        headers.update(observation.rate_limit_headers)
    return headers
