"""``lightmeter config recipe``, ``example`` and ``init``: configurations that work as they are."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from shlex import quote

import click
import orjson

from proxy.recipes import RECIPES, read_recipe
from proxy.recipes import about as about_recipe
from proxy.settings.mistakes import ConfigurationError
from proxy.settings.settings import read_settings
from proxy.telemetry.program import PROGRAM

INSTALLS = "pip install"
_CONFIG = Path(__file__).parents[3] / "config"
_EXAMPLES = {
    "gateway": (Path(__file__).parent / "example.toml", _CONFIG / "lightmeter.toml"),
    "teams": (Path(__file__).parent / "example_teams.toml", _CONFIG / "teams.toml"),
}
"""Where each is in a wheel, and in a checkout."""


@click.command()
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="One JSON object, for scripts.")
def recipe(name: str | None, *, as_json: bool) -> None:
    """Print the configuration of a provider, as it works; without a NAME, list those that there are."""
    if name is not None and name not in RECIPES:
        raise click.ClickException(f"there is no recipe {name!r}; there are {', '.join(RECIPES)}")
    if name is not None:
        text = read_recipe(name)
        click.echo(orjson.dumps({"name": name, "toml": text}).decode() if as_json else text, nl=as_json)
        return
    about = {each: about_recipe(read_recipe(each)) for each in RECIPES}
    if as_json:
        click.echo(orjson.dumps({"recipes": [{"name": each, "about": text} for each, text in about.items()]}).decode())
    else:
        for each, text in about.items():
            click.echo(f"{each:26}{text}")


@click.command()
@click.argument("kind", type=click.Choice(list(_EXAMPLES)), default="gateway")
@click.option("--json", "as_json", is_flag=True, help="One JSON object, for scripts.")
def example(kind: str, *, as_json: bool) -> None:
    """Print a configuration with every setting that there is, and what each stands at.

    KIND is "gateway", for serve, or "teams", for apply.
    """
    places = _EXAMPLES[kind]
    text = next((place for place in places if place.is_file()), places[0]).read_text(encoding="utf-8")
    click.echo(orjson.dumps({"toml": text}).decode() if as_json else text, nl=as_json)


@click.command()
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), default="lightmeter.toml", show_default=True)
@click.option("--provider", help="The provider: one of the recipes.")
@click.option("--model", help="What clients ask for.")
@click.option("--upstream-model", help="What the provider calls it.")
@click.option("--store", help="Where quota and ledger are: embedded:PATH, or the address of a Redis.")
@click.option("--listen", help="HOST:PORT for clients.")
def init(
    output: Path,
    provider: str | None,
    model: str | None,
    upstream_model: str | None,
    store: str | None,
    listen: str | None,
) -> None:
    """Write a first configuration from five answers; a file that is there is never overwritten."""
    if output.exists():
        raise click.ClickException(f"{output} is there already: name another file with --output, or remove it")
    provider = provider or click.prompt(
        "Which provider", default="azure-openai", type=click.Choice(list(RECIPES)), show_choices=True
    )
    if provider not in RECIPES:
        raise click.ClickException(f"there is no recipe {provider!r}; there are {', '.join(RECIPES)}")
    text = read_recipe(provider)
    model = model or click.prompt("What clients call the model", default=_value(text, "id"))
    upstream = upstream_model or click.prompt("What the provider calls it", default=_value(text, "upstream_model"))
    store = store or click.prompt("Where quota is kept (embedded:PATH or redis://…)", default="embedded:./data")
    listen = listen or click.prompt("Where clients connect", default="0.0.0.0:8080")
    written = f"[server]\nlisten = {_quoted(listen)}\n\n[store]\nurl = {_quoted(store)}\n\n"
    written += _with(_with(text, "id", model), "upstream_model", upstream)
    wrong = _mistakes(written, output)
    to_install = [mistake for mistake in wrong if INSTALLS in mistake]
    if len(wrong) > len(to_install):
        raise click.ClickException("\n".join(wrong))
    try:
        with output.open("x", encoding="utf-8") as file:
            file.write(written)
    except FileExistsError:
        raise click.ClickException(f"{output} is there already: name another file with --output") from None
    click.echo(f"{output} is written. Next:")
    for word in sorted(set(_placeholder.findall(text))):
        click.echo(f"  put the name of yours in place of {word} in its base_url")
    for mistake in to_install:
        click.echo(f"  {mistake.rpartition(': ')[2]}")
    for variable in sorted(set(_variable.findall(text))):
        click.echo(f"  export {variable}=…")
    named = f"--config {quote(str(output))}"
    click.echo(f"  {PROGRAM.command('config check')} {named}\n  {PROGRAM.command('serve')} {named}")


_variable = re.compile(r'_env = "(\w+)"')
_placeholder = re.compile(r"\b(?:RESOURCE|PROJECT)\b")


def _mistakes(text: str, path: Path) -> list[str]:
    """What ``config check`` would say of it, once its variables are there."""
    try:
        read_settings(tomllib.loads(text), str(path), dict.fromkeys(_variable.findall(text), "a-key-to-come"))
    except ConfigurationError as error:
        return str(error).splitlines()
    return []


def _value(text: str, key: str) -> str:
    found = re.search(rf'^{key} = "(.*)"$', text, re.MULTILINE)
    return found[1] if found else ""


def _with(text: str, key: str, value: str) -> str:
    return re.sub(rf"^{key} = .*$", lambda _found: f"{key} = {_quoted(value)}", text, count=1, flags=re.MULTILINE)


def _quoted(value: str) -> str:
    # JSON's strings are TOML's too.
    return orjson.dumps(value).decode()
