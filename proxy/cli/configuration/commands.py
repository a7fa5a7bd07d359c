"""``lightmeter config``: looking at a configuration, and beginning one."""

from __future__ import annotations

import click

from proxy.cli.configuration.check import check
from proxy.cli.configuration.recipes import example, init, recipe


@click.group()
def config() -> None:
    """Look at the configuration, or begin one."""


for command in (check, example, init, recipe):
    config.add_command(command)
