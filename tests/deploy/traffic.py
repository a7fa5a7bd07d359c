"""Mixed traffic of several teams, with everything that can go wrong in it now and then."""

from __future__ import annotations

import contextlib
import http.client
import math
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic
from typing import Any

from tests.support.gateways import RunningGateway, SampleProvider, ask, image_model

MODELS = [image_model("acme/image-1"), image_model("acme/image-mini", "0.25"), image_model("north/photo", "1.5")]
SHARES = (6, 3, 2)
SPARE_PROVIDER = "spare"
DEPLOYED = {
    **{name: value for name, value in image_model("acme/spread").items() if name not in ("provider", "upstream_model")},
    "deployments": [{"provider": name, "upstream_model": "image-1"} for name in ("sample", SPARE_PROVIDER)],
}
"""A model that is made in two places: breakers and retries are seen there."""

TEAMS = {"design": 8, "research": 3, "shop": 5}
"""Each team's share of the traffic."""

QUOTAS = {"quota_units": 2_000_000_000, "quota_units_per_day": 150_000_000, "quota_units_per_month": 240_000_000}
KINDS = {
    "plain": 100,
    "two images": 20,
    "4k": 12,
    "overage": 3,
    "empty": 1,
    "failing": 2,
    "dropped": 1,
    "busy": 2,
    "refused": 3,
    "truncated": 2,
    "models": 8,
    "unknown key": 1,
    "unknown model": 1,
    "no quota": 2,
    "spread": 3,
    "spread, busy": 2,
}
"""How often each kind of request comes."""

PROMPTS = {
    "overage": "[sample images=3] more than asked",
    "empty": "[sample images=0] nothing",
    "failing": "[sample status=500] a failure",
    "dropped": "[sample drop_connection] no answer",
    "busy": "[sample status=429] too much",
    "refused": "[sample status=400] something improper",
    "spread, busy": "[sample status=503] too much in both places",
    "truncated": "[sample image_bytes=3000 truncate_after=5000] two images, and one of them arrives",
}


def spare_provider(provider: SampleProvider) -> dict[str, Any]:
    """The second place of ``DEPLOYED``: the same sample provider by another name."""
    return {"name": SPARE_PROVIDER, "base_url": f"{provider.url}/v1", "api_key_env": "SAMPLE_PROVIDER_KEY"}


@dataclass(frozen=True)
class Callers:
    """The keys of the teams, and one of nobody's that has no quota."""

    keys: dict[str, str]
    poor: str


def make_callers(gateway: RunningGateway) -> Callers:
    """Every team with every quota, each with a key."""
    for team in TEAMS:
        answer = gateway.admin("POST", "/admin/v1/teams", body={"id": team, "name": team, "limits": QUOTAS})
        assert answer.status == 201, answer.body
    return Callers({team: gateway.make_key(team=team) for team in TEAMS}, gateway.make_key(1, team="visitors"))


class Traffic:
    """One request after another, chosen by chance."""

    def __init__(self, gateway: RunningGateway, callers: Callers, seed: int) -> None:
        self._gateway = gateway
        self._callers = callers
        self._random = random.Random(seed)  # noqa: S311 - the same traffic each time, not a secret
        self._rounds = iter(KINDS)

    def send_one(self) -> None:
        """One of each kind first, so that all of them come; then by chance."""
        kind = next(self._rounds, None) or self._choose(KINDS)
        if kind == "models":
            ask("GET", f"{self._gateway.url}/v1/models", key=next(iter(self._callers.keys.values())))
            return
        key = self._callers.keys[self._choose(TEAMS)]
        if kind == "unknown key":
            key = "lm_acme_nobody"
        elif kind == "no quota":
            key = self._callers.poor
        with contextlib.suppress(OSError, http.client.HTTPException):
            self._gateway.generate(key, **self._fields(kind))

    def _fields(self, kind: str) -> dict[str, Any]:
        model = self._random.choices([model["id"] for model in MODELS], SHARES)[0]
        fields = {"model": model, "prompt": PROMPTS.get(kind, f"[sample delay_ms={self._delay_ms()}] a cube")}
        if kind.startswith("spread"):
            fields["model"] = DEPLOYED["id"]
        elif kind == "two images":
            fields["n"] = 2
        elif kind == "truncated":
            fields |= {"n": 2, "response_format": "b64_json"}
        elif kind == "4k":
            fields["size"] = "4K"
        elif kind == "unknown model":
            fields["model"] = f"nobody/{self._random.random()}"
        return fields

    def _delay_ms(self) -> int:
        return min(2_000, round(self._random.lognormvariate(math.log(120), 0.6)))

    def _choose(self, shares: dict[str, int]) -> str:
        return self._random.choices(list(shares), list(shares.values()))[0]


@contextmanager
def running_traffic(
    gateway: RunningGateway, callers: Callers, *, senders: int, pause_s: Callable[[float], float]
) -> Iterator[None]:
    """Traffic of so many senders for as long as the block lasts.

    ``pause_s`` says how long each of them waits after a request, given the seconds since the beginning.
    """
    ended = threading.Event()
    began = monotonic()

    def send(number: int) -> None:
        traffic = Traffic(gateway, callers, number)
        while not ended.wait(pause_s(monotonic() - began)):
            traffic.send_one()

    threads = [threading.Thread(target=send, args=(number,)) for number in range(senders)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        for thread in threads:
            thread.join()
