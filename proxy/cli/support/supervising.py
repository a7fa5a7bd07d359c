"""Running several workers under one supervisor until somebody asks the process to stop."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import click
import orjson

from proxy.cli.support.running import StopSignals, Terminal, on_hangup, reload_or_stop, settle_memory
from proxy.cli.support.service_manager import ServiceManager, warn_of_its_limit
from proxy.settings.mistakes import ConfigurationError
from proxy.settings.settings import Settings, read_text
from proxy.supervisor.handover import SIGNALS
from proxy.supervisor.supervisor import AFTER_THE_DRAIN_S, Supervisor

logger = logging.getLogger(__name__)


async def supervise(settings: Settings, path: Path, workers: int, *, as_json: bool) -> int:
    """Start so many workers, and stop them when the process is asked to stop; the exit status."""
    supervisor, manager = Supervisor(settings, read_text(path), path, workers), ServiceManager()
    stop = StopSignals(supervisor.kill)
    warn_of_its_limit(settings.server.drain_seconds)
    if not await stop.unless_asked(supervisor.start()):
        return 0
    public, admin = supervisor.front.public_address, supervisor.front.admin_address
    listening = f"listening on {public}, admin on {admin}"
    logger.info("%d workers are %s", workers, listening)
    if as_json:
        click.echo(orjson.dumps({"public": public, "admin": admin}).decode())
    return await _serve(settings, supervisor, stop, manager, listening)


async def supervise_again(settings: Settings, path: Path, workers: int, handed: Mapping[str, Any]) -> int:
    """The same with workers that run already, and are replaced by so many new ones."""
    supervisor, manager = Supervisor(settings, read_text(path), path, workers), ServiceManager()
    stop = StopSignals(supervisor.kill)
    await supervisor.take_over(handed, workers)
    listening = f"listening on {supervisor.front.public_address}, admin on {supervisor.front.admin_address}"
    logger.info("this version has taken over, %s", listening)
    return await _serve(settings, supervisor, stop, manager, listening)


async def _serve(
    settings: Settings, supervisor: Supervisor, stop: StopSignals, manager: ServiceManager, status: str
) -> int:
    terminal = Terminal()
    try:
        settle_memory()
        on_hangup(partial(reload_or_stop, terminal, stop, partial(_reload, supervisor, manager)))
        # Where another program was here before, they have waited since.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        manager.ready(status)
        if await _is_to_restart(supervisor, stop):
            logger.info("restarting: another version takes over in this process")
            manager.reloading()
            await supervisor.hand_over(lambda: stop.is_asked)
        on_hangup(_nothing)
        stopping = f"stopping: {supervisor.crew.ready} workers"
        logger.info(stopping)
        manager.stopping(stopping, within_s=settings.server.drain_seconds + AFTER_THE_DRAIN_S)
    finally:
        exit_status = await supervisor.stop()
        manager.close()
    return exit_status


async def _is_to_restart(supervisor: Supervisor, stop: StopSignals) -> bool:
    """Wait for one or the other; a stop comes first."""
    stopped, asked = asyncio.create_task(stop.wait()), asyncio.create_task(supervisor.restart_asked())
    await asyncio.wait((stopped, asked), return_when=asyncio.FIRST_COMPLETED)
    is_to_stop = stopped.done()
    for task in (stopped, asked):
        task.cancel()
    return not is_to_stop


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
