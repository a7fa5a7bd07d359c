"""``make draw``: the console's pages as pictures for the manual, of a gateway with some traffic."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import click
from playwright.sync_api import Browser

from proxy.metering.redis_store.facts import MONTH_LENGTH, utc_day
from tests.console.browsing import chromium, visitor
from tests.support.gateways import (
    ADMIN_TOKEN,
    RunningGateway,
    ask,
    configuration,
    image_model,
    running_gateway,
    sample_provider,
)
from tests.support.processes import ROOT

FOLDER = ROOT / "deploy" / "console"
PRICES = [{"quality": "high", "base": 18_000}, {"quality": "low", "base": 2_000}]
TEAMS = {"research": 400_000, "design": 900_000, "marketing": 2_000_000}
PEOPLE = ("ada@example.org", "grace@example.org", "katherine@example.org", "annie@example.org")
PROJECTS = ("project=apollo, env=prod", "project=gemini, env=prod", "project=apollo, env=dev")
DESK, PHONE = (1280, 860), (390, 844)


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
        body = {"model": model, "prompt": "a poster", "n": 12 if sent % 17 == 0 else 1 + sent % 2, "quality": quality}
        # Some have more to draw than others, and some are not said.
        person = PEOPLE[min(sent % 7, sent % 5)] if sent % 7 < len(PEOPLE) else None
        tags = {"x-lightmeter-tags": PROJECTS[sent % len(PROJECTS)]} if sent % 4 else {}
        url = f"{gateway.url}/v1/images/generations"
        ask("POST", url, key=key, body={**body, "user": person} if person else body, headers=tags)
        time.sleep(0.4 + 0.3 * (sent % 7))
    # The last of it is written within seconds.
    time.sleep(4)


def draw(browser: Browser, gateway: RunningGateway, folder: Path) -> None:
    """Each page as it is seen first."""
    month = utc_day(int(time.time() * 1_000))[:MONTH_LENGTH]
    pages = {
        "overview": ("overview", "light", DESK),
        "team": ("teams/research", "light", DESK),
        "usage": ("usage?team=design&by=user", "light", DESK),
        "statement": (f"statements?team=design&month={month}", "light", DESK),
        "ledger": ("ledger?team=design", "dark", DESK),
        "phone": ("overview", "dark", PHONE),
    }
    for name, (path, scheme, (width, height)) in pages.items():
        with visitor(browser, gateway, ADMIN_TOKEN, width=width, scheme=scheme) as person:
            page = person.visit(path)
            page.set_viewport_size({"width": width, "height": height})
            page.wait_for_timeout(500)
            page.screenshot(path=folder / f"{name}.png")
            person.check(axe=False)
            click.echo(f"{folder / name}.png: {(folder / f'{name}.png').stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
