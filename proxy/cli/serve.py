"""``lightmeter serve`` and ``lightmeter config check``."""

from __future__ import annotations

import asyncio
import logging
import os
from functools import partial
from pathlib import Path
from time import time

import click
import orjson
from redis.exceptions import RedisError

from proxy.app import Gateway
from proxy.cli.recipes import example, init, recipe
from proxy.cli.support.running import StopSignals, on_hangup, run, settle_memory
from proxy.cli.support.service_manager import ServiceManager
from proxy.cli.support.supervising import supervise, supervise_again
from proxy.metering.embedded.server import EmbeddedStoreError
from proxy.metering.redis.durability import Finding, StoreFacts, judge, survey
from proxy.metering.redis.pool import open_pool
from proxy.settings.mistakes import ConfigurationError
from proxy.settings.settings import Settings, load_settings
from proxy.supervisor.cpus import count_workers
from proxy.supervisor.handover import handed_over, read_handed
from proxy.supervisor.worker import serve_as_worker
from proxy.telemetry.logs import set_up_logs

logger = logging.getLogger(__name__)

AFTER_THE_DRAIN_S = 60.0
"""At most, what follows the drain takes: breaking off, the last settlements and spans, the end of an embedded store."""

config_option = click.option(
    "--config",
    "path",
    type=click.Path(path_type=Path, dir_okay=False),
    default="lightmeter.toml",
    envvar="LIGHTMETER_CONFIG",
    show_default=True,
    show_envvar=True,
    help="The configuration file.",
)


def load(path: Path) -> Settings:
    """The settings in the file. Raises ConfigurationError, which says how to begin where there is none."""
    try:
        return load_settings(path)
    except ConfigurationError as error:
        if path.exists():
            raise
        hint = "name another with --config, or write a first one with 'lightmeter config init'"
        raise ConfigurationError(f"{error}: {hint}") from None


@click.command()
@config_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object with both addresses, once it serves.")
def serve(path: Path, *, as_json: bool) -> None:
    """Run the gateway until SIGTERM or Ctrl-C; on SIGHUP, read the file's models and providers again."""
    handed = handed_over(os.environ) or {}
    if "control" in handed:
        raise SystemExit(run(serve_as_worker(handed)))
    try:
        settings = load(path)
        if "trial" in handed:
            return
        set_up_logs(settings.logs.level)
        workers = count_workers(settings.server.workers)
        if "supervisor" in handed:
            raise SystemExit(run(supervise_again(settings, path, workers, read_handed(handed["supervisor"]))))
        if workers > 1:
            raise SystemExit(run(supervise(settings, path, workers, as_json=as_json)))
        run(serve_until_stopped(settings, path, as_json=as_json))
    except (ConfigurationError, EmbeddedStoreError) as error:
        raise click.ClickException(str(error)) from None


async def serve_until_stopped(settings: Settings, path: Path | None = None, *, as_json: bool = False) -> None:
    """Start a gateway, and stop it when the process is asked to stop.

    With a ``path``, its models and providers are read again from there on SIGHUP.
    """
    stop, manager = StopSignals(), ServiceManager()
    gateway = Gateway(settings)
    if not await stop.unless_asked(gateway.start()):
        return
    try:
        settle_memory()
        if path is not None:
            on_hangup(partial(reload, gateway, path, manager))
        listening = f"listening on {gateway.public_address}, admin on {gateway.admin_address}"
        logger.info(listening)
        if as_json:
            click.echo(orjson.dumps({"public": gateway.public_address, "admin": gateway.admin_address}).decode())
        manager.ready(listening)
        await stop.wait()
        on_hangup(_nothing)
        stopping = f"stopping: {gateway.lifecycle.in_flight} requests in flight"
        logger.info(stopping)
        manager.stopping(stopping, within_s=settings.server.drain_seconds + AFTER_THE_DRAIN_S)
    finally:
        # Also where the addresses could not be printed.
        await gateway.stop()
        manager.close()


def reload(gateway: Gateway, path: Path, manager: ServiceManager) -> None:
    """Take the models and providers of the file as it is now; a bad file changes nothing."""
    manager.reloading()
    outcome = "the configuration was not taken, and the one before stays in force"
    try:
        gateway.reload(load_settings(path))
        gateway.metrics.reloaded(taken=True)
        outcome = "the configuration was read again"
    except ConfigurationError as error:
        gateway.metrics.reloaded(taken=False)
        for mistake in str(error).splitlines():
            logger.error("the configuration was not taken, and the one before stays in force: %s", mistake)
    finally:
        manager.ready(outcome)


def _nothing() -> None:
    """A gateway that stops has no use for other models, and is not to be ended by the signal either."""


@click.group()
def config() -> None:
    """Look at the configuration, or begin one."""


config.add_command(recipe)
config.add_command(example)
config.add_command(init)


@config.command()
@config_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object, for scripts.")
def check(path: Path, as_json: bool) -> None:
    """Check the configuration without starting anything; every mistake is reported.

    It reports as well which models retire, and what the store may lose, where the store can be asked.
    """
    try:
        settings = load(path)
    except ConfigurationError as error:
        if as_json:
            click.echo(orjson.dumps({"ok": False, "mistakes": str(error).splitlines()}).decode())
            raise SystemExit(1) from None
        raise click.ClickException(str(error)) from None
    findings, warnings = asyncio.run(_look_at_the_store(settings)), settings.warnings(time())
    if as_json:
        found = {"providers": [p.name for p in settings.providers], "models": [m.id for m in settings.all_models]}
        store = [{"level": logging.getLevelName(each.level).lower(), "text": each.text} for each in findings]
        click.echo(orjson.dumps({"ok": True, "mistakes": [], "warnings": warnings, **found, "store": store}).decode())
    else:
        click.echo(f"{path}: good: {len(settings.providers)} provider(s), {len(settings.all_models)} model(s)")
        for warning in warnings:
            click.echo(f"warning: {warning}")
        for each in findings:
            click.echo(
                f"store: {'' if each.level == logging.INFO else logging.getLevelName(each.level) + ': '}{each.text}"
            )


async def _look_at_the_store(settings: Settings) -> list[Finding]:
    """What the store may lose. An embedded one is not started for it: its settings are Lightmeter's own."""
    store = settings.store
    if settings.embedded_folder is not None:
        return list(judge(StoreFacts(appendonly=True, appendfsync=store.appendfsync)))
    pool = open_pool(store.url, timeout_s=store.timeout)
    try:
        async with asyncio.timeout(store.timeout):
            return await survey(pool, min_replicas=store.min_replicas)
    except (RedisError, OSError) as error:
        why = str(error) or f"no answer within {store.timeout:g} seconds"
        return [Finding(logging.WARNING, f"it cannot be asked now what it may lose ({why})")]
    finally:
        await pool.aclose()
