"""The command line: ``lightmeter``."""

from __future__ import annotations

import contextlib
from importlib import import_module
from typing import Any

import click

from proxy.cli.support.failures import explain, open_standard_descriptors
from proxy.cli.support.output import leave_output
from proxy.telemetry.version import package_version

COMMANDS = {
    "serve": ("proxy.cli.serve", "serve"),
    "demo": ("proxy.cli.demo", "demo"),
    "sample-provider": ("proxy.sample_provider.command", "sample_provider"),
    "keys": ("proxy.cli.accounts", "keys"),
    "teams": ("proxy.cli.accounts", "teams"),
    "usage": ("proxy.cli.accounts", "usage"),
    "ledger": ("proxy.cli.ledger", "ledger"),
    "journal": ("proxy.cli.journal", "journal"),
    "audit": ("proxy.cli.audit", "audit_log"),
    "apply": ("proxy.cli.apply", "apply"),
    "completion": ("proxy.cli.completion", "completion"),
    "price": ("proxy.cli.price", "price_command"),
    "config": ("proxy.cli.serve", "config"),
}
"""The module and the name of each; imported when it is asked for, since a gateway takes half a second to import."""


class _Commands(click.Group):
    def main(self, *arguments: Any, **given: Any) -> Any:
        """Run the command that was asked for; the process ends with its status."""
        open_standard_descriptors()
        try:
            return super().main(*arguments, **given)
        except OSError as error:
            # Before the words: standard error may be the same full disk.
            leave_output()
            with contextlib.suppress(OSError):
                click.echo(f"Error: {explain(error)}", err=True)
            raise SystemExit(1) from None

    def list_commands(self, _context: click.Context) -> list[str]:
        """In the order of the alphabet."""
        return sorted(COMMANDS)

    def get_command(self, _context: click.Context, name: str) -> click.Command | None:
        """The command of this name."""
        if name not in COMMANDS:
            return None
        module, attribute = COMMANDS[name]
        command: click.Command = getattr(import_module(module), attribute)
        return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_version(), prog_name="lightmeter")
def main() -> None:
    """Lightmeter: an async reverse proxy for image generation that meters what it forwards."""
