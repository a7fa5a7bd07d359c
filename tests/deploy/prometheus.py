"""A real Prometheus with the rules and alerts of deploy/, in a hurry: it scrapes each second."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from tests.support.gateways import ask
from tests.support.processes import ROOT, Server, free_port, running, wait_for

FOLDER = ROOT / "deploy" / "prometheus"
INTERVAL_S = 1
READY = 200


class QueryError(Exception):
    """Prometheus did not take a query; the message is its own."""


@dataclass(frozen=True)
class Prometheus:
    """A Prometheus that runs."""

    url: str
    server: Server

    def query(self, expression: str, at_s: float | None = None) -> list[dict[str, Any]]:
        """What the expression is now, or was at this time in seconds since the epoch. Raises QueryError."""
        at = {} if at_s is None else {"time": at_s}
        data = self._get("query", query=expression, **at)
        result: list[dict[str, Any]] = data["result"]
        return result

    def query_range(self, expression: str, start_s: float, end_s: float, step_s: float) -> list[dict[str, Any]]:
        """The expression from one time to another. Raises QueryError."""
        result: list[dict[str, Any]] = self._get(
            "query_range", query=expression, start=start_s, end=end_s, step=step_s
        )["result"]
        return result

    def label_values(self, series: str, label: str) -> list[str]:
        """As Grafana's ``label_values``. Raises QueryError."""
        values: list[str] = self._get(f"label/{label}/values", **{"match[]": series})
        return values

    def rules(self) -> list[dict[str, Any]]:
        """Every rule and every alert."""
        return [rule for group in self._get("rules")["groups"] for rule in group["rules"]]

    def _get(self, path: str, **parameters: object) -> Any:
        answer = ask("GET", f"{self.url}/api/v1/{path}?{urlencode(parameters)}").json
        if answer["status"] != "success":
            raise QueryError(answer["error"])
        return answer["data"]


@contextmanager
def running_prometheus(binary: str, folder: Path, targets: Sequence[str]) -> Iterator[Prometheus]:
    """A Prometheus by the configuration of deploy/, but for its haste and its targets (``HOST:PORT``)."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("rules.yml", "alerts.yml"):
        shutil.copy(FOLDER / name, folder)
    configuration = (FOLDER / "prometheus.yml").read_text()
    assert configuration.count("15s") == 2
    assert configuration.count("- 127.0.0.1:8081\n") == 1
    in_their_place = "- " + "\n          - ".join(targets) + "\n"
    (folder / "prometheus.yml").write_text(
        configuration.replace("15s", f"{INTERVAL_S}s").replace("- 127.0.0.1:8081\n", in_their_place)
    )
    port = free_port()
    command = [
        binary,
        f"--config.file={folder}/prometheus.yml",
        f"--storage.tsdb.path={folder}/data",
        f"--web.listen-address=127.0.0.1:{port}",
        # A query sees what is there now, not what was there five minutes ago.
        "--query.lookback-delta=5s",
    ]
    with running(command, folder / "prometheus.log") as server:
        url = f"http://127.0.0.1:{port}"
        wait_for(lambda: _is_ready(url), "an answer of Prometheus")
        yield Prometheus(url, server)


def _is_ready(url: str) -> bool:
    try:
        return ask("GET", f"{url}/-/ready").status == READY
    except OSError:
        return False
