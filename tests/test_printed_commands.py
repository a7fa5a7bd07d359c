"""Commands that are printed work where they are printed: none takes for granted that a shell finds ``lightmeter``."""

from __future__ import annotations

import ast
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.cli import COMMANDS
from tests.support.gateways import configuration
from tests.support.processes import ROOT, free_port

BARE = re.compile(rf"\blightmeter ({'|'.join(COMMANDS)})\b|\bpip install\b")
NAMES_ONLY = {
    "made by lightmeter demo",
    # What a Python on Windows cannot run, and what works there.
    "'lightmeter keys', work here.",
    "'lightmeter ",
    # Read in a browser, on another machine.
    "'lightmeter console' prints a new one.",
    # How recipes' mistakes are told apart.
    "pip install",
    # A name that PostgreSQL shows.
    "lightmeter ledger ship",
}
"""Texts that are none to copy."""


def texts_of(file: Path) -> Iterator[str]:
    """All strings in the file's code that are no docstrings."""
    tree = ast.parse(file.read_text("utf-8"))
    documented = {
        node.body[0].value
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    loose = {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in documented | loose:
            yield node.value


def test_no_text_takes_the_command_for_granted() -> None:
    found = [
        (file.relative_to(ROOT), text)
        for file in (ROOT / "proxy").rglob("*.py")
        for text in texts_of(file)
        if BARE.search(text) and not any(name in text for name in NAMES_ONLY)
    ]
    # Where the command is made, its words stand alone.
    assert [each for each in found if each[0] != Path("proxy/telemetry/program.py")] == []


def commands_in(text: str) -> list[str]:
    """What is printed to be copied: in quotes, or in a line of its own."""
    words = rf"(?:{'|'.join(COMMANDS)})"
    called = rf"(?:[^\s'`]*lightmeter|[^\s'`]*python[0-9.]* -m proxy\.cli) {words}[^'`\n]*"
    return [match[1].strip() for match in re.finditer(rf"(?:['`]|^\s*)({called})(?:['`]|$)", text, re.MULTILINE)]


def run(*arguments: str, folder: Path, **environment: str) -> str:
    """What the command prints that is installed beside this Python, called by its path, as in a clone."""
    script = Path(sys.executable).with_name("lightmeter")
    variables = {"PATH": "/usr/bin:/bin", "HOME": str(folder), **environment}
    done = subprocess.run(
        [str(script), *arguments], check=False, capture_output=True, text=True, timeout=60, cwd=folder, env=variables
    )
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


@pytest.mark.slow
def test_what_is_printed_in_a_clone_is_found_by_a_shell_without_its_environment(tmp_path: Path) -> None:
    (tmp_path / "lightmeter.toml").write_text(
        configuration("embedded:./data", "http://127.0.0.1:1", server={"max_bodies": 5})
    )
    (tmp_path / "empty").mkdir()
    url = {"LIGHTMETER_ADMIN_TOKEN": "a-token-of-the-tests", "LIGHTMETER_ADMIN_URL": f"http://127.0.0.1:{free_port()}"}
    printed = {
        "no such setting": run("config", "check", folder=tmp_path, SAMPLE_PROVIDER_KEY="x"),
        "no such file": run("serve", folder=tmp_path / "empty"),
        "no gateway": run("keys", "list", folder=tmp_path, **url),
        "a first configuration": run(
            *("config", "init", "--provider", "openrouter", "--model", "a/b", "--upstream-model", "c"),
            *("--store", "embedded:./data", "--listen", "127.0.0.1:0", "--output", "my first.toml"),
            folder=tmp_path / "empty",
        ),
        "no such option": run("serve", "--nonsense", folder=tmp_path),
    }
    for situation, text in printed.items():
        commands = commands_in(text)
        assert commands, (situation, text)
        for command in commands:
            program = shlex.split(command.partition(" --config")[0])
            done = subprocess.run(
                ["/bin/sh", "-c", shlex.join([*program, *(() if "--help" in program else ("--help",))])],
                check=False,
                capture_output=True,
                text=True,
                timeout=60,
                cwd=tmp_path,
                env={"PATH": "/usr/bin:/bin", "HOME": os.environ.get("HOME", "/")},
            )
            assert done.returncode == 0, (command, done.stderr)
            assert "Usage: " in done.stdout
