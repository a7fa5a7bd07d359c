"""The command line: ``lightmeter``."""

from __future__ import annotations

import contextlib
import os
from importlib import import_module
from typing import Any

import click

from proxy.cli.support.failures import explain, open_standard_descriptors
from proxy.cli.support.output import leave_output
from proxy.telemetry.program import NAME, PROGRAM
from proxy.telemetry.version import package_version, read_build

COMMANDS = {
    "serve": ("proxy.cli.serve", "serve"),
    "restart": ("proxy.cli.restart", "restart"),
    "demo": ("proxy.cli.demo", "demo"),
    "sample-provider": ("proxy.sample_provider.command", "sample_provider"),
    "keys": ("proxy.cli.accounts", "keys"),
    "teams": ("proxy.cli.accounts", "teams"),
    "usage": ("proxy.cli.accounts", "usage"),
    "statement": ("proxy.cli.books.statement", "statement"),
    "ledger": ("proxy.cli.books.ledger", "ledger"),
    "journal": ("proxy.cli.books.journal", "journal"),
    "audit": ("proxy.cli.books.audit", "audit_log"),
    "apply": ("proxy.cli.apply", "apply"),
    "completion": ("proxy.cli.completion", "completion"),
    "price": ("proxy.cli.price", "price_command"),
    "config": ("proxy.cli.configuration.commands", "config"),
    "console": ("proxy.cli.console", "console"),
}
"""The module and the name of each; imported when it is asked for, since a gateway takes half a second to import."""

COMPLETION = "_LIGHTMETER_COMPLETE"
POSIX_MODULES = ("fcntl", "resource", "uvloop")
"""What a gateway needs and no Python on Windows has."""


class _Commands(click.Group):
    def main(self, *arguments: Any, **given: Any) -> Any:
        """Run the command that was asked for; the process ends with its status."""
        open_standard_descriptors()
        # What a shell completes goes by the name alone.
        given.setdefault("prog_name", NAME if COMPLETION in os.environ else PROGRAM.here())
        given.setdefault("complete_var", COMPLETION)
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
        try:
            command: click.Command = getattr(import_module(module), attribute)
        except ModuleNotFoundError as error:
            if error.name not in POSIX_MODULES:
                raise
            return not_here(name, error.name)
        return command


def not_here(name: str, module: str) -> click.Command:
    """The command ``name`` where it cannot run: it says so, and what works instead."""

    def refuse() -> None:
        raise click.ClickException(
            f"'lightmeter {name}' runs on Linux and macOS: Python has no {module} here. On Windows, run the gateway in "
            "WSL or in a container; there, store.server names the server of an embedded store, and "
            "store.url = 'redis://…' a Redis anywhere. The commands that talk to a running gateway, such as "
            "'lightmeter keys', work here."
        )

    return click.Command(
        name,
        callback=refuse,
        help="Linux and macOS only.",
        params=[click.Argument(["arguments"], nargs=-1, type=click.UNPROCESSED, expose_value=False)],
        context_settings={"ignore_unknown_options": True, "help_option_names": []},
    )


def _show_version(context: click.Context, _option: click.Parameter, asked: bool) -> None:
    if not asked or context.resilient_parsing:
        return
    build = read_build()
    click.echo(f"lightmeter, version {package_version()} (commit {build.commit}, {build.date})")
    context.exit()


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_version,
    help="Show the version, its commit and the commit's date.",
)
def main() -> None:
    """Lightmeter: an async reverse proxy for image generation that meters what it forwards."""
