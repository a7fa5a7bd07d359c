"""``make draw``: both dashboards as pictures, their queries asked of a Prometheus that scrapes two gateways.

The traffic is mixed, and rises and falls. What one team has used before is not in what is watched.
"""

from __future__ import annotations

import contextlib
import math
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click

from tests.deploy import dashboards
from tests.deploy.drawing import Drawn, Line, Picture, line_name
from tests.deploy.prometheus import Prometheus, running_prometheus
from tests.deploy.traffic import DEPLOYED, MODELS, Callers, make_callers, running_traffic, spare_provider
from tests.support.gateways import RunningGateway, configuration, running_gateway, sample_provider
from tests.support.processes import ROOT, wait_for
from tests.support.requirements import program
from tests.support.stores import store_server

FOLDER = ROOT / "deploy" / "grafana"
SENDERS = 5
WARM_UP_S = 12
USED_BEFORE = 480
"""Dear requests before anybody watches."""

POINTS = 110
WAVE_S = 140
TEAM = {"team": "design", "limit": "quota_units_per_month", "pace": "5m"}


@click.command()
@click.option("--seconds", type=click.IntRange(20, 3_600), default=300, show_default=True, help="How long to watch.")
@click.option("--to", "folder", type=click.Path(path_type=Path, file_okay=False), default=FOLDER, show_default=True)
def main(seconds: int, folder: Path) -> None:
    """Draw the dashboards from real data."""
    with tempfile.TemporaryDirectory() as temporary, running_stack(Path(temporary)) as prometheus:
        time.sleep(WARM_UP_S)
        began = time.time()
        time.sleep(seconds)
        for name in dashboards.NAMES:
            path = folder / f"{name}.png"
            draw(prometheus, dashboards.load(name), began, time.time()).save(str(path))
            click.echo(f"{path}: {path.stat().st_size / 1000:.0f} kB")


@contextlib.contextmanager
def running_stack(folder: Path) -> Iterator[Prometheus]:
    """Two gateways on one store, a provider, a Prometheus, and traffic through both gateways."""
    binary = program("prometheus", "prometheus")
    with ExitStack() as stack:
        url, _ = stack.enter_context(store_server("valkey", folder))
        provider = stack.enter_context(sample_provider(folder))
        toml = configuration(
            url,
            provider.url,
            models=[*MODELS, DEPLOYED],
            others=[spare_provider(provider)],
            logs={"requests": False},
            metrics={"label_teams": 10, "team_refresh_seconds": 1},
            accounting={"units_per_usd": 100_000},
        )
        gateways = [stack.enter_context(running_gateway(folder / name, toml)) for name in ("gw-1", "gw-2")]
        callers = make_callers(gateways[0])
        wait_for(lambda: all(f'team="{TEAM["team"]}"' in each.metrics() for each in gateways), "the team as a label")
        for number in range(USED_BEFORE):
            gateways[number % 2].generate(callers.keys[TEAM["team"]], model=MODELS[-1]["id"], n=10, size="4K")
        targets = [gateway.admin_url.removeprefix("http://") for gateway in gateways]
        prometheus = stack.enter_context(running_prometheus(binary, folder / "prometheus", targets))
        for gateway in gateways:
            stack.enter_context(_wave(gateway, callers))
        yield prometheus


def _wave(gateway: RunningGateway, callers: Callers) -> contextlib.AbstractContextManager[None]:
    def pause_s(elapsed_s: float) -> float:
        return 0.25 + 0.18 * math.sin(2 * math.pi * elapsed_s / WAVE_S)

    return running_traffic(gateway, callers, senders=SENDERS, pause_s=pause_s)


def draw(prometheus: Prometheus, dashboard: Mapping[str, Any], began: float, ended: float) -> Picture:
    """The dashboard as it looked from one time to another, in seconds since the epoch."""
    step_s = max(1.0, (ended - began) / POINTS)
    values = {"__rate_interval": f"{max(10, round(step_s * 5))}s", "instance": ".*", "model": ".*", **TEAM}
    chosen = [
        f"{variable['label']}: {TEAM.get(variable['name'], 'All')}"
        for variable in dashboard["templating"]["list"]
        if variable["type"] != "datasource"
    ]
    places = [panel["gridPos"] for panel in dashboard["panels"]]
    picture = Picture(dashboard["title"], "    ".join(chosen), max(place["y"] + place["h"] for place in places))
    for panel in dashboard["panels"]:
        drawn = Drawn(panel)
        for target in panel.get("targets", ()):
            expression = dashboards.substitute(target["expr"], values)
            if target["instant"]:
                found = [(each["metric"], [each["value"]]) for each in prometheus.query(expression, ended)]
            else:
                series = prometheus.query_range(expression, began, ended, step_s)
                found = [(each["metric"], each["values"]) for each in series]
            for labels, samples in found:
                points = [(float(at), float(value)) for at, value in samples]
                drawn.lines.append(Line(line_name(target["legendFormat"], labels), labels, points, target["refId"]))
        picture.add(drawn)
    return picture


if __name__ == "__main__":
    main()
