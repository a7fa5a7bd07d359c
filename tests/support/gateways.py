"""A whole Lightmeter for the tests: gateway, store and sample provider, each a process of its own."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from proxy.metering.redis_store.facts import utc_day
from tests.support.processes import Server, python_module, running

ADMIN_TOKEN = "the-token-of-the-tests"
PROVIDER_KEY = "sk-provider-secret-of-the-tests"
ALL_PARAMETERS = [
    "n", "size", "quality", "style", "user", "image_config", "background", "moderation", "output_format",
    "output_compression", "response_format",
]  # fmt: skip


@dataclass(frozen=True)
class Answer:
    """An HTTP answer, whatever its status."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


def ask(
    method: str, url: str, *, key: str | None = None, body: Any = None, headers: Mapping[str, str] | None = None
) -> Answer:
    """One request; ``body`` is sent as JSON where it is not bytes."""
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, method=method)  # noqa: S310 - addresses of the test's own servers
    for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
        request.add_header(name, value)
    if key is not None:
        request.add_header("Authorization", f"Bearer {key}")
    try:
        with urllib.request.urlopen(request, timeout=60) as response:  # noqa: S310
            return Answer(response.status, dict(response.headers), response.read())
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code, dict(error.headers), error.read())


@dataclass(frozen=True)
class SampleProvider:
    """A sample provider that runs."""

    url: str
    server: Server

    def images_made(self) -> int:
        """How many images it has generated since it started."""
        return int(ask("GET", f"{self.url}/stats").json["images"])

    def requests(self) -> list[dict[str, Any]]:
        """What it has been sent since it was last cleared."""
        received: list[dict[str, Any]] = ask("GET", f"{self.url}/requests").json
        return received

    def clear(self) -> None:
        """Forget the requests."""
        ask("DELETE", f"{self.url}/requests")


@dataclass(frozen=True)
class RunningGateway:
    """A gateway that runs."""

    url: str
    admin_url: str
    server: Server

    def make_key(self, quota_units: int | None = None, *, team: str = "acme", **limits: Any) -> str:
        """A new key's text."""
        body = {"team": team, "limits": {"quota_units": quota_units, **limits}}
        answer = self.admin("POST", "/admin/v1/keys", body=body)
        assert answer.status == 201, answer.body
        return str(answer.json["key"])

    def admin(self, method: str, path: str, *, body: Any = None) -> Answer:
        """A request on the admin API."""
        return ask(method, self.admin_url + path, key=ADMIN_TOKEN, body=body)

    def generate(self, key: str, **fields: Any) -> Answer:
        """One request for images."""
        body = {"model": "acme/image-1", "prompt": "a translucent blue cube", **fields}
        return ask("POST", f"{self.url}/v1/images/generations", key=key, body=body)

    def quota(self, key: str) -> dict[str, int]:
        """The key's own view of its quota."""
        answer = ask("GET", f"{self.url}/v1/key", key=key)
        assert answer.status == 200, answer.body
        quota: dict[str, int] = answer.json["limits"]["quota_units"]
        return quota

    def ledger(self, key: str, *, whole_team: bool = False) -> list[dict[str, Any]]:
        """The key's ledger entries, or those of all keys of its team."""
        team = key_id(key).rpartition("_")[0]
        entries: list[dict[str, Any]] = []
        whose = f"team={team}" if whole_team else f"team={team}&key={key_id(key)}"
        cursor = ""
        while True:
            answer = self.admin("GET", f"/admin/v1/ledger?limit=1000&{whose}{cursor}")
            assert answer.status == 200, answer.body
            entries += answer.json["data"]
            if answer.json["next_cursor"] is None:
                return entries
            cursor = f"&cursor={answer.json['next_cursor']}"

    def check_books(self, key: str) -> None:
        """The counters of the key and of its team equal the ledger, each request has one entry, and nothing is held."""
        team = key_id(key).rpartition("_")[0]
        entries = [entry for entry in self.ledger(key, whole_team=True) if entry["kind"] != "grant"]
        requests = [entry["request"] for entry in entries if entry["kind"] == "request"]
        assert len(set(requests)) == len(requests)
        self._check_usage(f"teams/{team}", entries)
        self._check_usage(f"keys/{key_id(key)}", [entry for entry in entries if entry["key"] == key_id(key)])

    def _check_usage(self, account: str, entries: list[dict[str, Any]]) -> None:
        usage = self.admin("GET", f"/admin/v1/{account}/usage").json
        assert usage["limits"]["quota_units"]["posted"] == sum(entry["charged"] for entry in entries)
        assert usage["images"] == sum(entry["images"] for entry in entries)
        assert usage["overage_units"] == sum(entry["overage"] for entry in entries)
        assert {quota["reserved"] for name, quota in usage["limits"].items() if name.startswith("quota_units")} == {0}
        assert usage["limits"]["concurrent_requests"]["in_progress"] == 0
        for window in (usage["limits"]["quota_units_per_day"], usage["limits"]["quota_units_per_month"]):
            admitted = [entry for entry in entries if utc_day(entry["admitted_ms"]).startswith(window["window"])]
            assert window["posted"] == sum(entry["charged"] for entry in admitted)

    def memory_bytes(self) -> int:
        """Resident memory of the gateway's process."""
        return int(psutil.Process(self.server.process.pid).memory_info().rss)

    def metrics(self) -> str:
        """What Prometheus would read."""
        return ask("GET", f"{self.admin_url}/metrics").body.decode()


def key_id(key: str) -> str:
    """The id in a key's text."""
    return key.removeprefix("lm_").rpartition("_")[0]


@contextmanager
def sample_provider(folder: Path, *flags: str) -> Iterator[SampleProvider]:
    """A sample provider on a free port."""
    command = python_module("proxy.sample_provider", "--port", "0", "--api-key", PROVIDER_KEY, *flags)
    with running(command, folder / "provider.log") as server:
        url = server.wait_for_output(r"on (http://\S+)")[1]
        yield SampleProvider(url, server)


def configuration(
    store_url: str,
    provider_url: str,
    *,
    models: list[dict[str, Any]] | None = None,
    others: Any = (),
    **changes: dict[str, Any],
) -> str:
    """A gateway's TOML; ``changes`` go into the sections (``provider`` into the provider) of their names.

    ``others`` are more providers.
    """
    sections: dict[str, dict[str, Any]] = {
        "server": {"listen": "127.0.0.1:0", "drain_seconds": 10},
        "admin": {"listen": "127.0.0.1:0"},
        "store": {"url": store_url},
        "accounting": {},
    }
    provider = {"name": "sample", "base_url": f"{provider_url}/v1", "api_key_env": "SAMPLE_PROVIDER_KEY"}
    provider |= changes.pop("provider", {})
    for name, values in changes.items():
        sections[name] = {**sections.get(name, {}), **values}
    lines = [f"[{name}]\n{_toml(values)}" for name, values in sections.items()]
    lines += [f"[[providers]]\n{_toml(each)}" for each in (provider, *others)]
    lines += [f"[[models]]\n{_toml(model)}" for model in models or [image_model()]]
    return "\n".join(lines)


def image_model(name: str = "acme/image-1", multiplier: str = "1", **more: Any) -> dict[str, Any]:
    """A model of the sample provider."""
    return {
        "id": name,
        "provider": "sample",
        "upstream_model": "image-1",
        "token_multiplier": multiplier,
        "parameters": ALL_PARAMETERS,
        **more,
    }


@contextmanager
def running_gateway(
    folder: Path, toml: str, environment: Mapping[str, str] | None = None, *, prefix: Sequence[str] = ()
) -> Iterator[RunningGateway]:
    """``lightmeter serve`` with this configuration; ``prefix`` is the command that starts it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "lightmeter.toml"
    path.write_text(toml)
    command = [*prefix, *python_module("proxy.cli", "serve", "--config", str(path))]
    variables = {
        "SAMPLE_PROVIDER_KEY": PROVIDER_KEY,
        "LIGHTMETER_ADMIN_TOKEN": ADMIN_TOKEN,
        "LIGHTMETER_SERVER_DATA_FOLDER": str(folder / "data"),
        **(environment or {}),
    }
    with running(command, folder / "gateway.log", variables) as server:
        match = server.wait_for_output(r"listening on (\S+), admin on ([^\s\"]+)")
        yield RunningGateway(match[1], match[2], server)


def _toml(values: Mapping[str, Any]) -> str:
    return "".join(f"{name} = {toml_value(value)}\n" for name, value in values.items())


def toml_value(value: Any) -> str:
    """A value in one line."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{name} = {toml_value(each)}" for name, each in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml_value, value)) + "]"
    # JSON's strings and numbers are TOML's too.
    return json.dumps(value)
