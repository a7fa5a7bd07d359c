"""Running several workers under one supervisor until somebody asks the process to stop."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path

import click
import orjson

from proxy.cli.support.running import StopSignals, on_hangup, settle_memory
from proxy.cli.support.service_manager import ServiceManager
from proxy.settings.mistakes import ConfigurationError
from proxy.settings.settings import Settings, read_text
from proxy.supervisor.supervisor import AFTER_THE_DRAIN_S, Supervisor

logger = logging.getLogger(__name__)


async def supervise(settings: Settings, path: Path, workers: int, *, as_json: bool) -> int:
    """Start so many workers, and stop them when the process is asked to stop; the exit status."""
    supervisor, manager = Supervisor(settings, read_text(path), path, workers), ServiceManager()
    stop = StopSignals(supervisor.kill)
    if not await stop.unless_asked(supervisor.start()):
        return 0
    try:
        settle_memory()
        on_hangup(partial(_reload, supervisor, manager))
        public, admin = supervisor.front.public_address, supervisor.front.admin_address
        listening = f"listening on {public}, admin on {admin}"
        logger.info("%d workers are %s", workers, listening)
        if as_json:
            click.echo(orjson.dumps({"public": public, "admin": admin}).decode())
        manager.ready(listening)
        await stop.wait()
        on_hangup(_nothing)
        stopping = f"stopping: {supervisor.crew.ready} workers"
        logger.info(stopping)
        manager.stopping(stopping, within_s=settings.server.drain_seconds + AFTER_THE_DRAIN_S)
    finally:
        status = await supervisor.stop()
        manager.close()
    return status


def _reload(supervisor: Supervisor, manager: ServiceManager) -> None:
    """Have all workers take the file as it is now; a bad file changes nothing."""
    manager.reloading()
    outcome = "the configuration was not taken, and the one before stays in force"
    try:
        supervisor.reload()
        supervisor.front.metrics.reloaded(taken=True)
        outcome = "the configuration was read again"
    except ConfigurationError as error:
        supervisor.front.metrics.reloaded(taken=False)
        for mistake in str(error).splitlines():
            logger.error("the configuration was not taken, and the one before stays in force: %s", mistake)
    finally:
        manager.ready(outcome)


def _nothing() -> None:
    """A gateway that stops has no use for other models, and is not to be ended by the signal either."""
