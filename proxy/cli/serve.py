"""``lightmeter serve``."""

from __future__ import annotations

import logging
import os
from functools import partial
from pathlib import Path

import click
import orjson

from proxy.app import Gateway
from proxy.cli.support.configured import config_option, load
from proxy.cli.support.running import StopSignals, Terminal, on_hangup, reload_or_stop, run, settle_memory
from proxy.cli.support.service_manager import ServiceManager, warn_of_its_limit
from proxy.cli.support.supervising import supervise, supervise_again
from proxy.metering.embedded.server import EmbeddedStoreError
from proxy.settings.mistakes import ConfigurationError
from proxy.settings.settings import Settings, load_settings
from proxy.supervisor.cpus import count_workers
from proxy.supervisor.front import Front
from proxy.supervisor.handover import handed_over, read_handed
from proxy.supervisor.worker import serve_as_worker
from proxy.telemetry.logs import set_up_logs

logger = logging.getLogger(__name__)

AFTER_THE_DRAIN_S = 60.0
"""At most, what follows the drain takes: breaking off, the last settlements and spans, the end of an embedded store."""


@click.command()
@config_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object with both addresses, once it serves.")
def serve(path: Path, *, as_json: bool) -> None:
    """Run the gateway until SIGTERM or Ctrl-C; on SIGHUP, read the file's models and providers again.

    It ends as well when the terminal that it was started at is closed, unless it was started under nohup.
    """
    handed = handed_over(os.environ) or {}
    if "control" in handed:
        raise SystemExit(run(serve_as_worker(handed, settle_memory)))
    try:
        settings = load(path)
        if "trial" in handed:
            return Front.rehearse(settings, os.environ)
        set_up_logs(settings.logs.level)
        for unknown in settings.unknown_variables(os.environ):
            logger.warning("%s", unknown)
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
    terminal, stop, manager = Terminal(), StopSignals(), ServiceManager()
    warn_of_its_limit(settings.server.drain_seconds)
    gateway = Gateway(settings)
    if not await stop.unless_asked(gateway.start()):
        return
    try:
        settle_memory()
        if path is not None:
            on_hangup(partial(reload_or_stop, terminal, stop, partial(reload, gateway, path, manager)))
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
