"""The command line: ``lightmeter``."""

from __future__ import annotations

from importlib import import_module

import click

from proxy.telemetry.version import package_version

COMMANDS = {
    "serve": ("proxy.cli.serve", "serve"),
    "demo": ("proxy.cli.demo", "demo"),
    "sample-provider": ("proxy.sample_provider.command", "sample_provider"),
    "keys": ("proxy.cli.manage", "keys"),
    "teams": ("proxy.cli.teams", "teams"),
    "usage": ("proxy.cli.manage", "usage"),
    "ledger": ("proxy.cli.ledger", "ledger"),
    "journal": ("proxy.cli.journal", "journal"),
    "audit": ("proxy.cli.audit_trail", "audit_log"),
    "apply": ("proxy.cli.apply", "apply"),
    "config": ("proxy.cli.serve", "config"),
}
"""The module and the name of each; imported when it is asked for, since a gateway takes half a second to import."""


class _Commands(click.Group):
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
