"""The configuration file that a command reads."""

from __future__ import annotations

from pathlib import Path

import click

from proxy.settings.mistakes import ConfigurationError
from proxy.settings.settings import Examined, Settings, examine_file
from proxy.telemetry.program import PROGRAM

DEFAULT = "lightmeter.toml"

config_option = click.option(
    "--config",
    "path",
    type=click.Path(path_type=Path, dir_okay=False),
    default=DEFAULT,
    envvar="LIGHTMETER_CONFIG",
    show_default=True,
    show_envvar=True,
    help="The configuration file.",
)


def load(path: Path) -> Settings:
    """The settings in the file. Raises ConfigurationError, which says how to begin where there is none."""
    return examine(path).unless_wrong()


def examine(path: Path) -> Examined:
    """What is in the file. Raises ConfigurationError where it cannot be read, and says how to begin without one."""
    # Whatever is printed for another shell, or for one in another folder, names it.
    PROGRAM.configuration = str(path)
    try:
        return examine_file(path)
    except ConfigurationError as error:
        if path.exists():
            raise
        hint = f"name another with --config, or write a first one with '{PROGRAM.command('config init')}'"
        raise ConfigurationError(f"{error}: {hint}") from None
