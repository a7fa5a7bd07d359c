"""The command line: ``lightmeter``."""

from __future__ import annotations

import click

from proxy.cli.apply import apply
from proxy.cli.audit_trail import audit_log
from proxy.cli.demo import demo
from proxy.cli.ledger import ledger
from proxy.cli.manage import keys, usage
from proxy.cli.serve import config, serve
from proxy.cli.teams import teams
from proxy.sample_provider.command import sample_provider
from proxy.telemetry.metrics import package_version


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_version(), prog_name="lightmeter")
def main() -> None:
    """Lightmeter: an async reverse proxy for image generation that meters what it forwards."""


for command in (serve, demo, sample_provider, keys, teams, usage, ledger, audit_log, apply, config):
    main.add_command(command)
