from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import proxy
from proxy.cli import main
from proxy.cli.configuration.commands import config
from proxy.recipes import RECIPES, read_recipe
from proxy.settings.settings import load_settings


def run(*arguments: str, given: str | None = None) -> Result:
    return CliRunner().invoke(config, arguments, input=given)


def test_a_recipe_is_printed_as_it_is() -> None:
    assert run("recipe", "xai").stdout == read_recipe("xai")
    assert json.loads(run("recipe", "xai", "--json").stdout) == {"name": "xai", "toml": read_recipe("xai")}


def test_the_example_has_every_setting_and_is_taken_as_it_is(tmp_path: Path) -> None:
    text = (Path(proxy.__file__).parents[1] / "config" / "lightmeter.toml").read_text()
    assert run("example").stdout == run("example", "gateway").stdout == text
    teams = (Path(proxy.__file__).parents[1] / "config" / "teams.toml").read_text()
    assert run("example", "teams").stdout == teams
    assert json.loads(run("example", "--json").stdout) == {"toml": text}
    (tmp_path / "lightmeter.toml").write_text(text)
    assert load_settings(tmp_path / "lightmeter.toml", {"OPENAI_API_KEY": "a-made-up-key"}).models


def test_all_are_listed_with_what_they_are_for() -> None:
    listed = run("recipe").stdout.splitlines()
    assert [line.split()[0] for line in listed] == list(RECIPES)
    assert all(len(line.split()) > 3 for line in listed)
    told = json.loads(run("recipe", "--json").stdout)["recipes"]
    assert [each["name"] for each in told] == list(RECIPES)


def test_one_that_is_not_there_is_told_with_those_that_are() -> None:
    result = run("recipe", "nobody")
    assert result.exit_code == 1
    assert "there is no recipe 'nobody'; there are azure-flux, " in result.output


@pytest.mark.parametrize("name", RECIPES)
def test_five_answers_make_a_configuration(name: str, tmp_path: Path) -> None:
    path = tmp_path / "first.toml"
    given = f'{name}\nmy/"model"\ntheir-model\nembedded:{tmp_path}/data\n127.0.0.1:9999\n'
    result = run("init", "--output", str(path), given=given)
    assert result.exit_code == 0, result.output
    settings = load_settings(path, _environment(name))
    assert settings.server.listen == "127.0.0.1:9999"
    assert settings.store.url == f"embedded:{tmp_path}/data"
    assert (settings.models[0].id, settings.models[0].upstream_model) == ('my/"model"', "their-model")
    for variable in _environment(name):
        assert f"export {variable}=" in result.output
    assert ("RESOURCE" in result.output) == ("RESOURCE" in read_recipe(name))


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_has_nothing_to_be_warned_of(name: str, tmp_path: Path) -> None:
    path = tmp_path / "lightmeter.toml"
    path.write_text(read_recipe(name))
    assert load_settings(path, _environment(name)).warnings(0) == []


@pytest.mark.parametrize("command", [["config", "check"], ["serve"], ["price", "m"], ["journal", "list"]])
def test_without_a_configuration_it_is_told_how_to_begin(command: list[str], tmp_path: Path) -> None:
    path = tmp_path / "lightmeter.toml"
    result = CliRunner().invoke(main, [*command, "--config", str(path)])
    assert result.exit_code == 1
    assert f"{path}: cannot be read: No such file or directory: name another with --config, or write" in result.output
    assert "lightmeter config init" in result.output


def test_answers_may_be_options_and_the_rest_has_defaults(tmp_path: Path) -> None:
    path = tmp_path / "first.toml"
    options = ("--provider", "xai", "--model", "m", "--upstream-model", "u", "--store", "embedded:./d")
    assert run("init", "--output", str(path), *options, "--listen", "[::1]:1").exit_code == 0
    assert load_settings(path, _environment("xai")).models[0].id == "m"
    path.unlink()
    assert run("init", "--output", str(path), given="\n\n\n\n\n").exit_code == 0
    assert load_settings(path, _environment("azure-openai")).models[0].id == "azure/gpt-image-2.6-flare"


def test_a_file_that_is_there_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "first.toml"
    path.write_text("mine")
    result = run("init", "--output", str(path), given="\n\n\n\n\n")
    assert result.exit_code == 1
    assert "is there already" in result.output
    assert path.read_text() == "mine"


def test_a_provider_that_is_no_recipe_is_told(tmp_path: Path) -> None:
    result = run("init", "--output", str(tmp_path / "x.toml"), "--provider", "nobody")
    assert result.exit_code == 1
    assert not (tmp_path / "x.toml").exists()


def test_answers_that_are_no_configuration_are_told_and_nothing_is_written(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    result = run("init", "--output", str(path), "--provider", "xai", given="m\nu\nembedded:./d\nnowhere\n")
    assert result.exit_code == 1
    assert "server.listen: is 'nowhere': should be HOST:PORT" in result.output
    assert not path.exists()


def test_what_has_to_be_installed_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.settings.auth.find_spec", lambda _module: None)
    result = run("init", "--output", str(tmp_path / "x.toml"), "--provider", "vertex", given="\n\n\n\n")
    assert result.exit_code == 0, result.output
    assert "pip install 'lightmeter[google]'" in result.output


def _environment(name: str) -> dict[str, str]:
    return {word: "a-made-up-key" for word in read_recipe(name).split('"') if word.isupper() and "_" in word}
