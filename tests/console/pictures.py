"""``make draw``: the console's pages as pictures for the manual, of a gateway with some traffic."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import click
from playwright.sync_api import Browser

from tests.console.browsing import chromium, visitor
from tests.support.gateways import (
    ADMIN_TOKEN,
    RunningGateway,
    configuration,
    image_model,
    running_gateway,
    sample_provider,
)
from tests.support.processes import ROOT

FOLDER = ROOT / "deploy" / "console"
PRICES = [{"quality": "high", "base": 18_000}, {"quality": "low", "base": 2_000}]
TEAMS = {"research": 400_000, "design": 900_000, "marketing": 2_000_000}


@click.command()
@click.option(
    "--seconds", type=click.IntRange(5, 3_600), default=150, show_default=True, help="How long traffic flows."
)
@click.option("--to", "folder", type=click.Path(path_type=Path, file_okay=False), default=FOLDER, show_default=True)
def main(seconds: int, folder: Path) -> None:
    """Draw the console."""
    folder.mkdir(parents=True, exist_ok=True)
    models = [image_model("acme/draft"), image_model("acme/studio", "2.5", prices=PRICES)]
    with tempfile.TemporaryDirectory() as temporary, sample_provider(Path(temporary)) as provider:
        toml = configuration(
            *(f"embedded:{temporary}/data", provider.url), models=models, accounting={"units_per_usd": 100_000}
        )
        with running_gateway(Path(temporary), toml) as gateway, chromium() as browser:
            send(gateway, seconds)
            draw(browser, gateway, folder)


def send(gateway: RunningGateway, seconds: int) -> None:
    """Requests of three teams that rise and fall; a few are refused."""
    keys = [gateway.make_key(quota, team=team, quota_units_per_day=quota // 2) for team, quota in TEAMS.items()]
    ends, sent = time.monotonic() + seconds, 0
    while time.monotonic() < ends:
        sent += 1
        key, quality = keys[sent % len(keys)], ("low", "high")[sent % 5 == 0]
        model = ("acme/draft", "acme/studio")[sent % 2]
        gateway.generate(key, model=model, n=12 if sent % 17 == 0 else 1 + sent % 2, quality=quality)
        time.sleep(0.4 + 0.3 * (sent % 7))
    # The last of it is written within seconds.
    time.sleep(4)


def draw(browser: Browser, gateway: RunningGateway, folder: Path) -> None:
    """Each page as it is seen first."""
    pages = {
        "overview": ("overview", "light"),
        "team": ("teams/research", "light"),
        "ledger": ("ledger?team=design", "dark"),
    }
    for name, (path, scheme) in pages.items():
        with visitor(browser, gateway, ADMIN_TOKEN, width=1280, scheme=scheme) as person:
            page = person.visit(path)
            page.set_viewport_size({"width": 1280, "height": 860})
            page.wait_for_timeout(500)
            page.screenshot(path=folder / f"{name}.png")
            person.check(axe=False)
            click.echo(f"{folder / name}.png: {(folder / f'{name}.png').stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
