"""The command line where Python has none of the modules that a gateway needs, as on Windows."""

from __future__ import annotations

import subprocess
import sys

import pytest

from proxy.cli import COMMANDS, POSIX_MODULES

HIDE = f"""
import sys

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {POSIX_MODULES!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Hidden())
for name in {POSIX_MODULES!r}:
    sys.modules.pop(name, None)
from proxy.cli import main
main()
"""
ON_THE_MACHINE_OF_THE_GATEWAY = {"serve", "demo", "journal"}


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", HIDE, *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [("serve",), ("demo", "--once", "--port", "0")])
def test_a_gateway_says_where_it_runs_and_what_to_name(arguments: tuple[str, ...]) -> None:
    done = run(*arguments)
    assert done.returncode == 1
    assert done.stderr.startswith(f"Error: 'lightmeter {arguments[0]}' runs on Linux and macOS")
    assert "store.server" in done.stderr
    assert "redis://" in done.stderr


@pytest.mark.slow
def test_what_talks_to_a_gateway_or_reads_a_configuration_works() -> None:
    shown = run("--help")
    assert shown.returncode == 0, shown.stderr
    lines = {line.split()[0]: line for line in shown.stdout.partition("Commands:\n")[2].splitlines()}
    assert lines.keys() == COMMANDS.keys()
    assert {name for name, line in lines.items() if "Linux and macOS only." in line} == ON_THE_MACHINE_OF_THE_GATEWAY
    assert "set LIGHTMETER_ADMIN_TOKEN" in run("keys", "list").stderr
    assert "[[providers]]" in run("config", "example").stdout
