"""The manual is true: its code runs, its links lead somewhere, and what it names exists."""

from __future__ import annotations

import json
import os
import re
import runpy
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, get_args

import click
import orjson
import pytest
from pydantic import BaseModel

import proxy
from proxy.cli import main
from proxy.cli.provisioning import read_provisions
from proxy.domain.answers.images.answer import read_images
from proxy.domain.answers.images.writing import ImagesHead
from proxy.domain.errors import ProxyError
from proxy.domain.requests.image import parse_image_request
from proxy.settings.settings import Settings, load_settings, read_settings
from proxy.upstream.dialects import openai, words
from proxy.upstream.errors import reports as error_reports
from tests.benchmarks.check.__main__ import main as bench_check
from tests.benchmarks.compare import main as bench
from tests.domain.answer_samples import pass_on
from tests.domain.samples import make_model
from tests.support.forms import PNG
from tests.support.gateways import (
    ADMIN_TOKEN,
    ALL_PARAMETERS,
    RunningGateway,
    SampleProvider,
    configuration,
    image_model,
    key_id,
    running_gateway,
    sample_provider,
)
from tests.support.processes import ROOT, free_port, running
from tests.support.requirements import program
from tests.support.stores import server_binary

DIALECTS = "proxy/upstream/dialects/README.md"
MANUAL = (
    "README.md",
    "config/README.md",
    "deploy/README.md",
    "proxy/README.md",
    "proxy/web/admin/README.md",
    "proxy/web/public/README.md",
    DIALECTS,
    "tests/faults/README.md",
    "tests/benchmarks/README.md",
)
TEXTS = {file: (ROOT / file).read_text(encoding="utf-8") for file in MANUAL}
LINE_LENGTH = 120

NOT_RUN = {
    "git clone <this repository> lightmeter && cd lightmeter",
    "source .venv/bin/activate",
    "export OPENAI_API_KEY=sk-...",
    "export LIGHTMETER_ADMIN_TOKEN=$(cat data/admin-token)",
    "lightmeter ledger ship --to postgresql://lightmeter@db/finance",
    "lightmeter restart",
}
"""What needs a place, a key, a file or a gateway with workers that only its reader has."""

INSTALLS = {"docker", "helm", "install", "kubectl", "pip", "python3", "systemctl", "valkey-cli"}
"""What changes a machine; tests/deploy does it on one of its own."""

KEY_ID, ENTRY_ID = "research_k7f3m2q9aa", "research_1764061200000-0"
"""What the manual writes where the reader has ids of his own."""

BENCHMARKS = {"bench": bench, "bench-check": bench_check}

STATUSES = {"--dry-run": 3}
"""Of commands that end with another status than 0 when all is well, by what is in them."""

MODEL = "openai/gpt-image-2.6-flare"
UNIT_PRICE = 7_500
MINIMAL = """\
[[providers]]
name = "openai"
base_url = "https://api.openai.com/v1"

[[models]]
id = "openai/gpt-image-2.6-flare"
provider = "openai"
upstream_model = "gpt-image-2.6-flare"
token_multiplier = "1.5"
"""


@dataclass(frozen=True)
class Block:
    """A fenced block of code."""

    file: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


def _blocks() -> Iterator[Block]:
    for file, text in TEXTS.items():
        for match in re.finditer(r"^```(.*)\n((?s:.*?))^```$", text, re.MULTILINE):
            yield Block(file, text.count("\n", 0, match.start()) + 1, match[1], match[2])


BLOCKS = tuple(_blocks())


def blocks_of(language: str) -> list[Block]:
    return [block for block in BLOCKS if block.language == language]


def test_every_block_is_of_a_kind_that_is_run() -> None:
    assert sum(text.count("```") for text in TEXTS.values()) == 2 * len(BLOCKS)
    # Those of SQL are run by tests/shipping.
    assert {block.language for block in BLOCKS} == {"sh", "toml", "python", "sql"}


# --- TOML -------------------------------------------------------------------------------------------------------------


def secrets_for(text: str) -> dict[str, str]:
    """An environment that has every variable that a configuration names."""
    return {name: f"a-secret-for-{name}" for name in re.findall(r'_env = "(\w+)"', text)}


def is_whole(content: Mapping[str, Any]) -> bool:
    return {"server", "providers", "models"} <= content.keys()


@pytest.mark.parametrize("block", blocks_of("toml"), ids=str)
def test_a_configuration_is_taken(block: Block, tmp_path: Path) -> None:
    path, content = tmp_path / "block.toml", tomllib.loads(block.text)
    path.write_text(block.text)
    if "teams" in content:
        assert read_provisions(path).teams
    elif is_whole(content):
        assert load_settings(path, secrets_for(block.text)).models
    else:
        fragment = tomllib.loads(MINIMAL) | content
        assert read_settings(fragment, str(block), secrets_for(block.text)).catalog().all()


# --- Python -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SampleProvider]:
    """A sample provider."""
    with sample_provider(tmp_path_factory.mktemp("provider")) as server:
        yield server


def manual_configuration(folder: Path, provider: SampleProvider) -> str:
    """The manual's model, at the sample provider."""
    model = image_model(MODEL, "1.5", parameters=[*ALL_PARAMETERS, "stream", "partial_images"])
    models, accounting = [model, image_model("sample/image-1")], {"units_per_usd": 100_000}
    return configuration(f"embedded:{folder}/data", provider.url, models=models, accounting=accounting)


@pytest.fixture(scope="module")
def gateway(provider: SampleProvider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    """A gateway that serves the manual's model."""
    folder = tmp_path_factory.mktemp("gateway")
    with running_gateway(folder, manual_configuration(folder, provider)) as server:
        yield server


SDK_BLOCKS = [block for block in blocks_of("python") if block.file != DIALECTS]
CLIENT = next(block.text for block in SDK_BLOCKS if "client = OpenAI(" in block.text).partition("images = ")[0]


@pytest.mark.parametrize("block", SDK_BLOCKS, ids=str)
def test_lines_for_the_sdk_make_an_image_that_is_charged_once(block: Block, gateway: RunningGateway) -> None:
    key = gateway.make_key(100_000)
    code = block.text if "client = " in block.text else CLIENT + block.text
    if "Idempotency-Key" in code:
        code += block.text
    for stands, is_so in (("http://localhost:8080", gateway.url), ("lm_research_...", key)):
        assert stands in code
        code = code.replace(stands, is_so)
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    assert gateway.quota(key)["posted"] == UNIT_PRICE
    gateway.check_books(key)


def test_the_example_of_a_dialect_asks_and_reads(tmp_path: Path) -> None:
    (block,) = [block for block in blocks_of("python") if block.file == DIALECTS]
    path = tmp_path / "acme.py"
    path.write_text("from __future__ import annotations\n" + block.text)
    acme = runpy.run_path(str(path), {**vars(words), **vars(error_reports), **vars(openai)})["AcmeDialect"]()
    request = parse_image_request(orjson.dumps({"prompt": "a cube", "size": "1024x1024"}))
    model = make_model()
    assert acme.images_path(request, model) == "/pictures"
    assert acme.authorize("secret") == {"Authorization": "Bearer secret"}
    assert orjson.loads(acme.write_generation(request, model)) == {
        "model": "image-1", "text": "a cube", "aspect_ratio": "1:1", "image_size": "1K",
    }  # fmt: skip
    assert acme.images_at_once("images") == 4
    pictures = [{"thought": True, "image": "iVBORw0KGgo="}, {"image": {"data": "AAAA", "mime_type": "image/png"}}]
    reader = partial(read_images, acme.reading, ImagesHead(1), comes_as_events=False, stream=False)
    seen = pass_on(reader(), [orjson.dumps({"pictures": [], "images": pictures, "usage": {"cost": 4}})])
    assert (seen.images, seen.usage) == (1, b'{"cost":4}')
    assert orjson.loads(seen.output) == {"created": 1, "data": [{"b64_json": "AAAA", "media_type": "image/png"}]}
    for reason, message in (("busy", "The provider failed: not now"), ("policy", "not now")):
        seen = pass_on(reader(), [orjson.dumps({"error": {"reason": reason, "text": "not now"}})])
        assert (seen.images, seen.error) == (0, message)


# --- Shell ------------------------------------------------------------------------------------------------------------


def commands_of(text: str) -> list[str]:
    """The lines of a block, put together where they go on, without their comments."""
    lines = (re.sub(r"\s+# .*$", "", line).strip() for line in text.replace("\\\n", " ").splitlines())
    return [line for line in lines if line]


class Shell:
    """Runs the lines of one block, in a folder that has the files that they name."""

    def __init__(self, block: Block, folder: Path, provider: SampleProvider, stack: ExitStack) -> None:
        self._folder, self._provider, self._stack = folder, provider, stack
        self._ids: dict[str, str] = {}
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("LIGHTMETER_")},
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "OPENAI_API_KEY": "sk-made-up",
            "LIGHTMETER_ADMIN_TOKEN": ADMIN_TOKEN,
        }
        above = [each for each in blocks_of("toml") if each.file == block.file and each.line < block.line]
        for each in (*blocks_of("toml")[:1], *above):
            content = tomllib.loads(each.text)
            name = "teams.toml" if "teams" in content else "lightmeter.toml" if is_whole(content) else None
            if name is not None:
                (folder / name).write_text(each.text)
        for name in ("cat.png", "hat.png"):
            (folder / name).write_bytes(PNG)

    @cached_property
    def gateway(self) -> RunningGateway:
        """A gateway for this block alone."""
        folder = self._folder / "gateway"
        return self._stack.enter_context(running_gateway(folder, manual_configuration(folder, self._provider)))

    def run(self, command: str) -> None:
        """Run one line; what nobody knows how to run fails."""
        if command in NOT_RUN:
            return
        tool = Path(command.split(maxsplit=1)[0]).name
        known = {"make": self._make, "lightmeter": self._lightmeter, "curl": self._curl, "python": self._python}
        known["valkey-server"] = self._valkey_server
        if tool in INSTALLS:
            for named in re.findall(r"\bdeploy/\S+", command):
                assert (ROOT / named).exists(), command
        elif tool == "promtool":
            program("promtool", "prometheus")
            self._bash(command, folder=ROOT)
        else:
            assert tool in known, f"how is this run? {command}"
            known[tool](command)

    def _bash(self, command: str, *, folder: Path | None = None, **more: str) -> str:
        done = subprocess.run(
            ["bash", "-c", command],
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
            cwd=folder or self._folder,
            env={**self._environment, **more},
        )
        status = next((status for mark, status in STATUSES.items() if mark in command), 0)
        assert done.returncode == status, f"{command}\n{done.stdout}{done.stderr}"
        return done.stdout

    def _make(self, command: str) -> None:
        _, target, *assignments = shlex.split(command)
        makefile = (ROOT / "Makefile").read_text()
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), command
        for name, _, value in (assignment.partition("=") for assignment in assignments):
            assert re.search(rf"\$\(({name}\)|or \$\({name}\))", makefile), command
            arguments = value.split()
            assert all((ROOT / each).exists() for each in arguments if each.startswith("tests/")), command
            if target in BENCHMARKS and name == "ARGS":
                read = [str(ROOT) if each == "FOLDER" else each for each in arguments]
                BENCHMARKS[target].make_context(target, read)

    def _python(self, command: str) -> None:
        assert re.fullmatch(r"python -m tests\.benchmarks\.\w+", command)
        self._bash(f"{command} --help", folder=ROOT)

    def _curl(self, command: str) -> None:
        program("curl", "curl")
        for port, url in (("8080", self.gateway.url), ("8081", self.gateway.admin_url)):
            command = command.replace(f"localhost:{port}", url.removeprefix("http://"))
        asked = command.replace("curl ", "curl --silent --show-error --fail-with-body ", 1)
        assert json.loads(self._bash(asked, KEY=self.gateway.make_key(UNIT_PRICE)))

    def _lightmeter(self, command: str) -> None:
        command = command.removeprefix(".venv/bin/")
        for stands, is_so in self._ids.items():
            command = command.replace(stands, is_so)
        assert KEY_ID not in command
        assert ENTRY_ID not in command
        if command.startswith("lightmeter serve"):
            self._serve(command)
        elif re.match(r"lightmeter (config|journal) ", command):
            self._bash(command)
        else:
            printed = self._bash(command, LIGHTMETER_ADMIN_URL=self.gateway.admin_url)
            if command.startswith("lightmeter keys create"):
                self._spend(printed)

    def _valkey_server(self, command: str) -> None:
        """Until it takes connections: each of its settings is one that there is."""
        own = f"--port {free_port()} --cluster-port {free_port()} --dir {self._folder}"
        given = re.sub(r"--(port|dir) \S+", "", command.removeprefix("valkey-server"))
        with running([server_binary("valkey"), *shlex.split(own + given)], self._folder / "log") as server:
            server.wait_for_output("Ready to accept connections")

    def _serve(self, command: str) -> None:
        """Until it listens."""
        any_port = dict.fromkeys(("LIGHTMETER_SERVER_LISTEN", "LIGHTMETER_ADMIN_LISTEN"), "127.0.0.1:0")
        process = ["bash", "-c", f'cd "$0" && exec {command}', str(self._folder)]
        with running(process, self._folder / "log", {**self._environment, **any_port}) as server:
            server.wait_for_output("listening on")
            assert server.stop() == 0

    def _spend(self, printed: str) -> None:
        """A request with the key that was made, so that there is a ledger entry."""
        (key,) = re.findall(r"lm_\w+", printed)
        assert self.gateway.generate(key, model=MODEL).status == 200
        (entry,) = self.gateway.ledger(key)
        self._ids |= {KEY_ID: key_id(key), ENTRY_ID: entry["id"]}


@pytest.mark.parametrize("block", blocks_of("sh"), ids=str)
def test_commands_run(block: Block, provider: SampleProvider, tmp_path: Path) -> None:
    with ExitStack() as stack:
        shell = Shell(block, tmp_path, provider, stack)
        commands = commands_of(block.text)
        assert commands, "a block of commands without any"
        for command in commands:
            shell.run(command)


def test_what_is_not_run_stands_in_the_manual() -> None:
    assert {command for block in blocks_of("sh") for command in commands_of(block.text)} >= NOT_RUN


# --- What is named ----------------------------------------------------------------------------------------------------


def prose_of(file: str) -> str:
    return re.sub(r"^```(?s:.*?)^```$", "", TEXTS[file], flags=re.MULTILINE)


def anchors_of(text: str) -> set[str]:
    """The headings, as GitHub links to them."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("file", MANUAL)
def test_links_lead_somewhere(file: str) -> None:
    targets = re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", prose_of(file)))
    for path, _, anchor in (target.partition("#") for target in targets if "://" not in target):
        to = (ROOT / file).parent / path if path else ROOT / file
        assert to.exists(), path
        assert not anchor or anchor in anchors_of(to.read_text(encoding="utf-8")), f"{path}#{anchor}"


def test_the_readme_leads_to_all_of_the_manual() -> None:
    assert [file for file in MANUAL[1:] if f"]({file})" not in TEXTS["README.md"]] == []


@pytest.mark.parametrize("file", MANUAL)
def test_it_says_for_whom_it_is_in_lines_that_can_be_read(file: str) -> None:
    heading, blank, first, *_ = TEXTS[file].splitlines()
    assert heading.startswith("# ")
    assert not blank
    assert first.startswith("For ") or file == "README.md"
    assert [line for line in TEXTS[file].splitlines() if len(line) > LINE_LENGTH and not line.startswith("|")] == []


def settings_of(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Every setting, as its section and its name."""
    for attribute, field in model.model_fields.items():
        name = field.alias or attribute
        sections = [each for each in types_in(field.annotation) if issubclass(each, BaseModel)]
        for section in sections:
            yield from settings_of(section, f"{prefix}.{name}".lstrip("."))
        if not sections:
            yield prefix, name


def types_in(annotation: Any) -> Iterator[type]:
    """The types that an annotation is made of."""
    if isinstance(annotation, type) and not get_args(annotation):
        yield annotation
    for inner in get_args(annotation):
        yield from types_in(inner)


SETTINGS = set(settings_of(Settings))


def test_the_example_has_every_setting_and_no_other() -> None:
    section, found = "", set()
    for line in (ROOT / "config" / "lightmeter.toml").read_text().splitlines():
        if match := re.match(r"(?:# )?\[+([a-z._]+)\]+(?: |$)", line):
            section = match[1]
        elif match := re.match(r"(?:# )?([a-z_0-9]+) = ", line):
            found.add((section, match[1]))
    assert found == SETTINGS


def test_settings_that_the_manual_names_exist() -> None:
    named = re.findall(r"`(server|admin|store|accounting|logs|metrics|traces)\.(\w+)", "".join(TEXTS.values()))
    assert len(named) > len(MANUAL)
    assert set(named) - SETTINGS == set()


def test_the_manual_has_every_metric(gateway: RunningGateway) -> None:
    metrics = set(re.findall(r"^# HELP lightmeter_(\w+)", gateway.metrics(), re.MULTILINE))
    listed = set(re.findall(r"`([a-z_]+)", TEXTS["deploy/README.md"].partition("## Metrics")[2].partition("\n## ")[0]))
    assert metrics
    assert metrics - listed == set()


def error_codes(kind: type[ProxyError] = ProxyError) -> Iterator[str]:
    for each in kind.__subclasses__():
        yield each.code
        yield from error_codes(each)


def test_the_manual_has_every_error() -> None:
    text = "".join(TEXTS.values())
    assert {code for code in error_codes() if f"`{code}`" not in text} == set()


def test_commands_that_the_manual_names_exist() -> None:
    named = set(re.findall(r"`lightmeter ([a-z-]+)(?: ([a-z]+))?", "".join(map(prose_of, MANUAL))))
    assert named
    for name, subcommand in named:
        command = main.get_command(click.Context(main), name)
        assert command is not None, name
        assert not isinstance(command, click.Group) or subcommand in command.commands, (name, subcommand)


def test_the_path_of_a_request_leads_through_files_that_exist() -> None:
    story = proxy.__doc__ or ""
    numbered = re.findall(r"^    (\d)  ([a-z_/]+\.py) ", story, re.MULTILINE)
    assert [int(number) for number, _ in numbered] == list(range(1, 9))
    beside = re.findall(r"^    ([a-z_]+/[a-z_/]+(?:\.py)?)", story, re.MULTILINE)
    assert len(beside) >= 4
    for named in [file for _, file in numbered] + beside:
        assert (ROOT / "proxy" / named).exists(), named
    # What is called in a step is called by that name.
    for called in ("parse_image_request", "price", "agree", "admit", "ask", "read", "feed", "settle"):
        assert f"{called}(" in story
        assert any(f"def {called}(" in file.read_text("utf-8") for file in (ROOT / "proxy").rglob("*.py")), called
