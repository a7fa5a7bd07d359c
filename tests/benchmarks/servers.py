"""The subjects of the comparison: each a server in a process of its own, on a free port, stopped with the block."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil

from tests.support.processes import START_TIMEOUT_S, Server, free_port, python_module, wait_for

DIRECT, NGINX, BARE, LIGHTMETER, BESIDE, LIMITED = "direct", "nginx", "bare", "lightmeter", "beside", "with every limit"
MODEL = "sample/image-1"
GEMINI_MODEL = "sample/gemini-1"
PATH = "/v1/images/generations"
EDITS_PATH = "/v1/images/edits"
JSON = "application/json"
GEMINI_PATH = "/v1beta/models/image-1:generateContent"
QUOTA_UNITS = 10**15
EVERY_LIMIT = {
    **dict.fromkeys(("quota_units", "quota_units_per_day", "quota_units_per_month"), QUOTA_UNITS),
    **dict.fromkeys(("requests_per_minute", "images_per_minute"), 1_000_000),
    "concurrent_requests": 1_000,
    "models": ["sample/*"],
}
CALL_TIMEOUT_S = 30
BARE_FORWARDER = Path(__file__).with_name("bare_forwarder.py")
MEGABYTE = 10**6

NGINX_START = """
{user}
worker_processes 1;
daemon off;
pid {folder}/pid;
error_log {folder}/error.log;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    scgi_temp_path {folder}/scgi;
    uwsgi_temp_path {folder}/uwsgi;
    keepalive_requests 1000000000;
"""
NGINX_CONFIGURATION = (
    NGINX_START
    + """\
    upstream provider {{
        server {provider};
        keepalive 256;
        keepalive_requests 1000000000;
    }}
    server {{
        listen 127.0.0.1:{port} backlog=1024;
        location / {{
            proxy_pass http://provider;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering off;
            proxy_buffer_size 256k;
            proxy_buffers 8 256k;
        }}
    }}
}}
"""
)

# Authentication, reservation, settlement, ledger and metrics cannot be turned off; the request log is on.
LIGHTMETER_CONFIGURATION = """
[server]
listen = "127.0.0.1:0"
drain_seconds = 5
max_connections = 9_500
[admin]
listen = "127.0.0.1:0"
[store]
url = "embedded:{folder}/data"
[logs]
requests = true

[[providers]]
name = "sample"
base_url = "{provider}/v1"
api_key_env = "SAMPLE_PROVIDER_KEY"
max_connections = 20_000

[[models]]
id = "{model}"
provider = "sample"
upstream_model = "image-1"
token_multiplier = "1.5"
parameters = ["n", "size", "user", "stream", "partial_images"]

[[providers]]
name = "gemini"
dialect = "gemini"
base_url = "{provider}/v1beta"
api_key_env = "SAMPLE_PROVIDER_KEY"

[[models]]
id = "{gemini_model}"
provider = "gemini"
upstream_model = "image-1"
token_multiplier = "1.5"
parameters = ["size"]
"""


@dataclass(frozen=True, slots=True)
class Subject:
    """A server under load, the process that does its work, and the process of its store where it has one.

    ``key`` is the text that it is called with; those that meter nothing take any. Its ``workers`` do the work where it
    has some. ``provider`` is the one behind it.
    """

    name: str
    address: str
    process: psutil.Process
    store: psutil.Process | None = None
    key: str = "lm_any"
    workers: tuple[psutil.Process, ...] = ()
    provider: psutil.Process | None = None

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    @property
    def translates(self) -> bool:
        """Whether it speaks to a provider in that one's own words; the others pass on what they are given."""
        return self.name not in {DIRECT, NGINX, BARE}

    def cpu_seconds(self) -> tuple[float, float]:
        """What it has used, and what its store has."""
        own = sum(cpu_seconds(process) for process in (self.process, *self.workers))
        return own, cpu_seconds(self.store) if self.store else 0.0

    def provider_cpu_seconds(self) -> float:
        """What the provider behind it has used."""
        return cpu_seconds(self.provider) if self.provider else 0.0

    def megabytes(self) -> float:
        """The memory that it has in use, without its store."""
        return sum(resident_megabytes(process) for process in (self.process, *self.workers))


@dataclass(frozen=True, slots=True)
class Launch:
    """How a subject's own process is started, where it is not started as it is."""

    before: tuple[str, ...] = (sys.executable,)
    """What runs it, with its options."""
    environment: Mapping[str, str] = field(default_factory=dict)
    start_timeout_s: float = START_TIMEOUT_S


AS_IT_IS = Launch()


@dataclass(frozen=True, slots=True)
class Bench:
    """All subjects, the direct call first."""

    subjects: tuple[Subject, ...]

    @property
    def provider(self) -> Subject:
        """What is behind all others."""
        return self.subjects[0]

    @property
    def forwarders(self) -> tuple[Subject, ...]:
        return tuple(subject for subject in self.subjects if subject.name != DIRECT)

    def metered_images(self) -> int:
        """The images that Lightmeter has charged to the key."""
        lightmeter = next(subject for subject in self.subjects if subject.name == LIGHTMETER)
        _status, answer = call(lightmeter.port, "GET", "/v1/key", lightmeter.key)
        return int(json.loads(answer)["images"])


@contextmanager
def running_bench(
    folder: Path, beside: Path | None = None, *, limited: bool = False, workers: int = 0
) -> Iterator[Bench]:
    """Every subject that this machine has the programs for, started; their files are in ``folder``.

    ``beside`` is another checkout of Lightmeter, as a subject of its own. Where ``limited``, Lightmeter is called with
    another key as well, which has every limit, as its team has. With ``workers``, it is there once more with so many.
    """
    with ExitStack() as stack:
        direct = start_provider(stack, folder)
        provider = direct.address
        subjects = [direct]
        nginx = find_nginx()
        if nginx is not None:
            subjects.append(_start_nginx(stack, nginx, folder, provider))
        subjects.append(_start_bare(stack, folder, provider))
        subject, admin = _start_lightmeter(stack, folder, provider, LIGHTMETER, Path(sys.executable).parent)
        subjects.append(subject)
        if limited:
            admin("POST", "/admin/v1/teams", {"id": "limited", "limits": EVERY_LIMIT})
            key = admin("POST", "/admin/v1/keys", {"team": "limited", "limits": EVERY_LIMIT})["key"]
            subjects.append(replace(subject, name=LIMITED, key=key))
        if beside is not None:
            programs = beside.resolve() / ".venv" / "bin"
            subjects.append(_start_lightmeter(stack, folder, provider, BESIDE, programs)[0])
        if workers:
            programs, name = Path(sys.executable).parent, f"{workers} workers"
            subjects.append(_start_lightmeter(stack, folder, provider, name, programs, workers)[0])
        behind = direct.process
        yield Bench(tuple(one if one is direct else replace(one, provider=behind) for one in subjects))


def resident_megabytes(process: psutil.Process) -> float:
    """The memory that a process has in use."""
    return float(process.memory_info().rss) / MEGABYTE


def memory_bytes(pid: int) -> int:
    """What a process adds to the memory in use: a page that several have is shared out among them (proc(5))."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return 1024 * next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))


def cpu_seconds(process: psutil.Process) -> float:
    """Processor time that a process has used: to the nanosecond where the kernel tells it, else to its clock's tick.

    A tick is ten milliseconds, which is all that a store uses in a short slice
    (https://docs.kernel.org/scheduler/sched-stats.html).
    """
    told = []
    for path in Path(f"/proc/{process.pid}/task").glob("*/schedstat"):
        # A thread may end meanwhile.
        with contextlib.suppress(OSError):
            told.append(int(path.read_text().split()[0]))
    if told:
        return sum(told) / 1e9
    times = process.cpu_times()
    return float(times.user + times.system)


def key_header(path: str, key: str) -> tuple[str, str]:
    """The name and value of the header that a key goes in; Google's is another one."""
    return ("x-goog-api-key", key) if path == GEMINI_PATH else ("Authorization", f"Bearer {key}")


def call(
    port: int, method: str, path: str, key: str, body: bytes | None = None, content_type: str = JSON
) -> tuple[int, bytes]:
    """One request on a connection of its own: the status and the whole body of the answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=CALL_TIMEOUT_S)
    with contextlib.closing(connection):
        headers = dict([key_header(path, key), ("Content-Type", content_type)])
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        return response.status, response.read()


# --- Starting each of them --------------------------------------------------------------------------------------------


def find_nginx() -> str | None:
    """nginx's path; where users have no ``sbin`` in theirs, it is looked for there too."""
    return shutil.which("nginx", path=os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin")))


def start_sample_provider(stack: ExitStack, folder: Path) -> str:
    """Its address."""
    command = python_module("proxy.sample_provider", "--port", "0")
    server = stack.enter_context(_running(command, folder / "sample-provider.log"))
    return server.wait_for_output(r"sample provider on (http://\S+)")[1]


def start_provider(stack: ExitStack, folder: Path) -> Subject:
    """The provider behind all subjects, which costs little, and the sample provider that it learns its answers from."""
    behind = start_sample_provider(stack, folder)
    server = stack.enter_context(_running(python_module("tests.benchmarks.provider", behind), folder / "provider.log"))
    address = server.wait_for_output(r"provider on (http://\S+)")[1]
    return Subject(DIRECT, address, psutil.Process(server.process.pid))


def _start_nginx(stack: ExitStack, nginx: str, folder: Path, provider: str) -> Subject:
    own = folder / "nginx"
    own.mkdir()
    port = free_port()
    configuration = own / "nginx.conf"
    # Its worker would be nobody, who may not enter the temporary folder.
    user = "user root;" if os.geteuid() == 0 else ""
    configuration.write_text(
        NGINX_CONFIGURATION.format(user=user, folder=own, provider=provider.removeprefix("http://"), port=port)
    )
    command = [nginx, "-p", str(own), "-c", str(configuration), "-e", str(own / "error.log")]
    server = stack.enter_context(_running(command, folder / "nginx.log"))
    wait_for(lambda: _listens(port) or server.process.poll() is not None, "nginx")
    if server.process.poll() is not None:
        raise RuntimeError(f"nginx ended with status {server.process.returncode}:\n{server.output}")
    return Subject(NGINX, f"http://127.0.0.1:{port}", _only_child(server))


def _start_bare(stack: ExitStack, folder: Path, provider: str, launch: Launch = AS_IT_IS) -> Subject:
    command = [*launch.before, str(BARE_FORWARDER), provider]
    server = stack.enter_context(_running(command, folder / "bare.log", launch.environment))
    address = server.wait_for_output(r"bare forwarder on (http://\S+)", launch.start_timeout_s)[1]
    return Subject(BARE, address, psutil.Process(server.process.pid))


Admin = Callable[[str, str, dict[str, Any]], Any]


def _start_lightmeter(
    stack: ExitStack,
    folder: Path,
    provider: str,
    name: str,
    programs: Path,
    workers: int = 1,
    launch: Launch = AS_IT_IS,
) -> tuple[Subject, Admin]:
    own = folder / name.replace(" ", "-")
    own.mkdir()
    configuration = own / "lightmeter.toml"
    configuration.write_text(
        LIGHTMETER_CONFIGURATION.format(folder=own, provider=provider, model=MODEL, gemini_model=GEMINI_MODEL)
    )
    if workers > 1:
        configuration.write_text(configuration.read_text().replace("[server]", f"[server]\nworkers = {workers}", 1))
    token = secrets.token_urlsafe(32)
    before = launch.before if launch is not AS_IT_IS else ()
    command = [*before, str(programs / "lightmeter"), "serve", "--config", str(configuration)]
    environment = {"LIGHTMETER_ADMIN_TOKEN": token, "SAMPLE_PROVIDER_KEY": "sample", **launch.environment}
    server = stack.enter_context(_running(command, own / "log", environment))
    pattern = r"listening on (http://[0-9.:]+), admin on (http://[0-9.:]+)"
    found = server.wait_for_output(pattern, launch.start_timeout_s)
    admin_port = int(found[2].rpartition(":")[2])

    def admin(method: str, path: str, body: dict[str, Any]) -> Any:
        status, answer = call(admin_port, method, path, token, json.dumps(body).encode())
        if status != http.HTTPStatus.CREATED:
            raise RuntimeError(f"{method} {path}: {status} {answer.decode(errors='replace')}")
        return json.loads(answer)

    key = admin("POST", "/admin/v1/keys", {"team": "bench", "limits": {"quota_units": QUOTA_UNITS}})["key"]
    process = psutil.Process(server.process.pid)
    (store,) = [child for child in process.children() if "valkey" in child.name()]
    served_by = tuple(child for child in process.children() if child != store)
    return Subject(name, found[1], process, store, key, served_by), admin


@contextmanager
def _running(command: list[str], log: Path, environment: Mapping[str, str] | None = None) -> Iterator[Server]:
    server = Server(command, log, environment)
    children: list[psutil.Process] = []
    try:
        yield server
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            children = psutil.Process(server.process.pid).children(recursive=True)
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.stop()
        # A server that had to be killed may leave its own behind.
        for child in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _only_child(server: Server) -> psutil.Process:
    process = psutil.Process(server.process.pid)
    # A master listens before it has its worker.
    wait_for(lambda: bool(process.children()), "its worker")
    (child,) = process.children()
    return child
