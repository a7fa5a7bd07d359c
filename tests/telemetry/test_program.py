from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from proxy.telemetry.program import Program


@pytest.fixture
def venv(tmp_path: Path) -> Path:
    """A folder with a virtual environment in it, as ``make run`` leaves it: a command, a Python and its pip."""
    folder = tmp_path / "a clone" / ".venv" / "bin"
    folder.mkdir(parents=True)
    for name in ("lightmeter", "python", "pip"):
        (folder / name).write_text(f'#!/bin/sh\necho "{name} $*"\n')
        (folder / name).chmod(0o755)
    return folder


def program(venv: Path, *, path: str = "/usr/bin:/bin", started: str = "", **environment: str) -> Program:
    return Program(started or str(venv / "lightmeter"), str(venv / "python"), {"PATH": path, **environment})


def says(command: str, folder: Path, path: str = "/usr/bin:/bin") -> str:
    """What a shell answers that has only this PATH, in this folder."""
    return subprocess.run(
        ["/bin/sh", "-c", command], check=True, capture_output=True, text=True, cwd=folder, env={"PATH": path}
    ).stdout.strip()


def test_in_a_clone_it_is_called_by_its_path(venv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clone = venv.parents[1]
    monkeypatch.chdir(clone)
    for started in (".venv/bin/lightmeter", "/somewhere/pytest"):
        made = program(venv, started=started)
        assert made.here() == ".venv/bin/lightmeter"
        assert says(made.command("config check"), clone) == "lightmeter config check"
        assert says(made.command_elsewhere("keys list"), Path("/")) == "lightmeter keys list"
    assert program(venv).install("traces") == ".venv/bin/python -m pip install 'lightmeter[traces]'"
    assert says(program(venv).install("traces"), clone) == "python -m pip install lightmeter[traces]"


def test_in_another_folder_it_is_called_by_its_whole_path(venv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    assert says(program(venv).command("config check"), Path("/")) == "lightmeter config check"
    assert says(program(venv).install("traces"), Path("/")) == "python -m pip install lightmeter[traces]"


def test_where_a_shell_finds_it_it_is_called_by_its_name(venv: Path) -> None:
    path = f"{venv}:/usr/bin"
    assert program(venv, path=path).here() == program(venv, path=path).anywhere() == "lightmeter"
    assert program(venv, path=path).install("aws") == "pip install 'lightmeter[aws]'"


def test_an_activated_environment_is_active_in_one_shell_only(venv: Path) -> None:
    made = program(venv, path=f"{venv}:/usr/bin", VIRTUAL_ENV=str(venv.parent))
    assert made.here() == "lightmeter"
    assert says(made.anywhere(), Path("/")) == "lightmeter"


def test_another_command_of_the_same_name_is_not_meant(venv: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for name in ("lightmeter", "pip"):
        (other / name).write_text("#!/bin/sh\necho wrong\n")
        (other / name).chmod(0o755)
    made = program(venv, path=f"{other}:/usr/bin:/bin")
    assert says(made.command("serve"), tmp_path, str(other)) == "lightmeter serve"
    assert says(made.install("aws"), tmp_path, str(other)).startswith("python -m pip")


def test_without_a_script_it_is_a_module_of_its_python(venv: Path) -> None:
    (venv / "lightmeter").unlink()
    made = program(venv, started="/clone/proxy/cli/__main__.py")
    assert says(made.command("serve"), Path("/")) == "python -m proxy.cli serve"
    assert says(made.command_elsewhere("serve"), Path("/")) == "python -m proxy.cli serve"


def test_a_link_to_it_on_the_path_is_it(venv: Path, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "lightmeter").symlink_to(venv / "lightmeter")
    assert program(venv, path=f"{tmp_path}/bin:/usr/bin").anywhere() == "lightmeter"


def test_commands_for_elsewhere_name_the_configuration(venv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(venv)
    made = program(venv)
    made.configuration = "my file.toml"
    assert says(made.command_elsewhere("journal list"), Path("/")) == (
        f"lightmeter journal list --config {venv}/my file.toml"
    )


def test_this_process_can_be_called_again() -> None:
    done = subprocess.run(
        ["/bin/sh", "-c", Program().command("--version")], check=True, capture_output=True, text=True, env=os.environ
    )
    assert "lightmeter" in done.stdout
