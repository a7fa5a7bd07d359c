"""``lightmeter demo``: an image through the gateway, metered, on this machine, with nothing to set up."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, closing
from http import HTTPStatus
from importlib.util import find_spec
from pathlib import Path
from shlex import quote
from typing import Any

import aiohttp
import click

from proxy.app import Gateway
from proxy.cli.support.output import show_json
from proxy.cli.support.running import StopSignals, run
from proxy.domain.requests.image import LISTED_PARAMETERS
from proxy.metering.embedded.server import EmbeddedStoreError
from proxy.settings.mistakes import AddressInUseError, ConfigurationError
from proxy.settings.settings import Settings, read_settings
from proxy.telemetry.log_writer import LogWriter
from proxy.telemetry.logs import set_up_logs
from proxy.telemetry.program import PROGRAM
from proxy.web.console.first_image import FirstImage

LAST_PORT = 65_535
TEAM = "demo"
MODEL = "sample/image-1"
QUOTA_UNITS = 1_000_000
PROMPT = "A clean product photo of a translucent blue cube on a white table"
METRIC = "lightmeter_quota_units_total"
LINK_S = 900
"""Whoever has just started it reads on before they look."""

PROVIDER_START_S = 30
PROVIDER_STOP_S = 5


@click.command()
@click.option("--port", type=click.IntRange(0, 65_535), default=8080, show_default=True, help="0 takes a free one.")
@click.option("--admin-port", type=click.IntRange(0, 65_535), help="Default: the port after --port.")
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    default="lightmeter-demo",
    show_default=True,
    help="Where the store, the log and the picture are kept.",
)
@click.option("--once", is_flag=True, help="Stop after the one request.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object with what happened, for scripts.")
def demo(port: int, admin_port: int | None, folder: Path, *, once: bool, as_json: bool) -> None:
    """Start a store, a sample provider and the gateway; send one request through; then keep serving."""
    if find_spec("PIL") is None:
        raise click.ClickException(f"the demo draws its picture with Pillow: {PROGRAM.install('demo,embedded')}")
    if admin_port is None:
        admin_port = port + 1 if 0 < port < LAST_PORT else 0
    set_up_logs("warning")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        run(_demo(port, admin_port, folder, once=once, as_json=as_json))
    except AddressInUseError as error:
        option = "--port" if error.setting == "server.listen" else "--admin-port"
        raise click.ClickException(
            f"{option}: {error.address} is in use: choose another port, or free ones with "
            f"'{PROGRAM.command('demo --port 0')}'"
        ) from None
    except (ConfigurationError, EmbeddedStoreError) as error:
        message = str(error)
        for setting, option in (("server.listen:", "--port:"), ("admin.listen:", "--admin-port:")):
            message = message.replace(setting, option)
        raise click.ClickException(message) from None


async def _demo(port: int, admin_port: int, folder: Path, *, once: bool, as_json: bool) -> None:
    stop = StopSignals()
    async with _sample_provider() as provider_url:
        # What the shell has set for another gateway is not for this one.
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("LIGHTMETER_")}
        environment = {**inherited, "SAMPLE_PROVIDER_KEY": "sample"}
        settings = _settings(folder, provider_url, port, admin_port, environment)
        with (folder / "requests.log").open("ab") as log, closing(LogWriter(log.fileno())) as writer:
            gateway = Gateway(settings, environment, log_writer=writer)
            if not await stop.unless_asked(gateway.start()):
                return
            try:
                facts = await _send_one_request(gateway, folder)
                if as_json:
                    show_json(facts)
                else:
                    _show_what_happened(facts)
                    if not once:
                        _show_what_next(gateway, facts["key"], folder)
                if not once:
                    await stop.wait()
            finally:
                await gateway.stop()


@asynccontextmanager
async def _sample_provider() -> AsyncIterator[str]:
    """A sample provider in a process of its own, which ends with this one; its address."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "proxy.sample_provider", "--port", "0", "--exit-with-stdin"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    if process.stdin is None or process.stdout is None:
        raise click.ClickException("the sample provider has no pipes")
    try:
        async with asyncio.timeout(PROVIDER_START_S):
            line = (await process.stdout.readline()).decode()
        if "http://" not in line:
            raise click.ClickException(
                f"the sample provider did not start; '{PROGRAM.command('sample-provider')}' says why"
            )
        yield line.split()[-1]
    finally:
        process.stdin.close()
        with contextlib.suppress(ProcessLookupError, TimeoutError):
            async with asyncio.timeout(PROVIDER_STOP_S):
                await process.wait()
        if process.returncode is None:
            process.kill()
            await process.wait()


def _settings(folder: Path, provider_url: str, port: int, admin_port: int, environment: Mapping[str, str]) -> Settings:
    content: dict[str, Any] = {
        "server": {"listen": f"127.0.0.1:{port}", "drain_seconds": 5},
        "admin": {"listen": f"127.0.0.1:{admin_port}"},
        "store": {"url": f"embedded:{folder}"},
        "providers": [{"name": "sample", "base_url": f"{provider_url}/v1", "api_key_env": "SAMPLE_PROVIDER_KEY"}],
        "models": [
            {
                "id": MODEL,
                "provider": "sample",
                "upstream_model": "image-1",
                "token_multiplier": "1.5",
                "parameters": sorted(LISTED_PARAMETERS),
            }
        ],
    }
    return read_settings(content, "the demo's own configuration", environment)


async def _send_one_request(gateway: Gateway, folder: Path) -> dict[str, Any]:
    """Make a key, and spend some of its quota on a picture; what happened."""
    async with aiohttp.ClientSession() as session:
        admin = {"Authorization": f"Bearer {gateway.admin_token}"}
        body = {"team": TEAM, "name": "made by lightmeter demo", "limits": {"quota_units": QUOTA_UNITS}}
        made = await _call(session, "POST", f"{gateway.admin_address}/admin/v1/keys", admin, body)
        user = {"Authorization": f"Bearer {made['key']}"}
        wish = {"model": MODEL, "prompt": PROMPT, "n": 1, "image_config": {"aspect_ratio": "1:1", "image_size": "1K"}}
        answer = await _call(session, "POST", f"{gateway.public_address}/v1/images/generations", user, wish)
        address = answer["data"][0]["url"]
        async with session.get(address) as response:
            picture = await response.read()
        if response.status != HTTPStatus.OK:
            raise click.ClickException(f"{address} answers {response.status}: {picture[:500].decode(errors='replace')}")
        path = folder / "picture.png"
        path.write_bytes(picture)
        own = await _call(session, "GET", f"{gateway.public_address}/v1/key", user)
        entries = f"{gateway.admin_address}/admin/v1/ledger?key={made['id']}"
        (entry,) = (await _call(session, "GET", entries, admin))["data"]
        about = {name: entry[name] for name in ("team", "key", "model")}
        gateway.show_first_image(
            FirstImage(picture, "image/png", {**about, "quota_units": entry["charged"], "entry": entry["id"]})
        )
        async with session.get(f"{gateway.admin_address}/metrics") as response:
            metrics = await response.text()
    return {
        "public": gateway.public_address,
        "admin": gateway.admin_address,
        "team": TEAM,
        "key": made["key"],
        "model": MODEL,
        "picture": str(path),
        "picture_bytes": len(picture),
        "quota_units": own["limits"]["quota_units"],
        "metrics": [line for line in metrics.splitlines() if line.startswith(METRIC) and 'state="charged"' in line],
    }


def _show_what_happened(facts: dict[str, Any]) -> None:
    click.echo(f"Made the team '{TEAM}' and a key with {QUOTA_UNITS:,} quota units:\n  {facts['key']}\n")
    click.echo(f"Sent one request for '{MODEL}' through {facts['public']}")
    click.echo(f"  the picture, {facts['picture_bytes']:,} bytes, is in {facts['picture']}")
    quota = facts["quota_units"]
    click.echo(f"  it cost {quota['posted']:,} quota units (5,000 x the model's token_multiplier, 1.5)")
    click.echo(f"  the key has {quota['remaining']:,} of {quota['limit']:,} left")
    for line in facts["metrics"]:
        click.echo(f"  in {facts['admin']}/metrics: {line}\n")


async def _call(
    session: aiohttp.ClientSession, method: str, url: str, headers: dict[str, str], body: Any = None
) -> dict[str, Any]:
    async with session.request(method, url, headers=headers, json=body) as response:
        answer: dict[str, Any] = await response.json()
        if response.status >= 400:  # noqa: PLR2004 - where HTTP's errors begin
            raise click.ClickException(f"{url} answers {response.status}: {answer}")
        return answer


def _show_what_next(gateway: Gateway, key: str, folder: Path) -> None:
    program, token_file = PROGRAM.anywhere(), quote(str(folder.absolute() / "admin-token"))
    click.echo(
        f"""Serving until Ctrl-C. The console with this image, signed in by this link once, within 15 minutes:

  {gateway.sign_in_link(for_s=LINK_S)}

In another terminal:

  curl {gateway.public_address}/v1/images/generations \\
    -H "Authorization: Bearer {key}" \\
    -H "Content-Type: application/json" \\
    -d '{{"model": "{MODEL}", "prompt": "A lighthouse at dusk", "n": 2, "size": "1024x1024"}}'

  curl {gateway.public_address}/v1/key -H "Authorization: Bearer {key}"

or in Python, after 'pip install openai':

  from openai import OpenAI
  client = OpenAI(base_url="{gateway.public_address}/v1", api_key="{key}")
  images = client.images.generate(model="{MODEL}", prompt="A lighthouse at dusk", n=2, size="1024x1024")
  print(images.data[0].url)

To manage keys and read the ledger:

  export LIGHTMETER_ADMIN_URL={gateway.admin_address} LIGHTMETER_ADMIN_TOKEN=$(cat {token_file})
  {program} keys list
  {program} ledger list
  {program} console          # another link

The requests are logged in {folder / "requests.log"}, the metrics are at {gateway.admin_address}/metrics"""
    )
