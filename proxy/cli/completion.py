"""``lightmeter completion``: what a shell needs to complete commands and options.

The script is click's own: it asks the command line itself, so it knows every option of this version, and no package has
to be installed beside it.
"""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

PROGRAM = "lightmeter"
COMPLETE_VARIABLE = "_LIGHTMETER_COMPLETE"
"""What click's script sets when it asks; by the name of the program."""


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print a script that completes commands and options in your SHELL.

    \b
    bash: echo 'eval "$(lightmeter completion bash)"' >> ~/.bashrc
    zsh:  echo 'eval "$(lightmeter completion zsh)"' >> ~/.zshrc
    fish: lightmeter completion fish > ~/.config/fish/completions/lightmeter.fish
    """
    kind = get_completion_class(shell)
    if kind is None:
        raise click.ClickException(f"{shell} is not known to this version of click")
    click.echo(kind(click.get_current_context().find_root().command, {}, PROGRAM, COMPLETE_VARIABLE).source())
