"""Each peer in processes of its own on this machine's loopback address, stopped with the block."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import psutil
import redis

from tests.benchmarks import servers
from tests.benchmarks.peers import packages
from tests.benchmarks.peers.figures import (
    BARE,
    LIGHTMETER,
    LITELLM,
    LITELLM_BUDGET,
    NGINX,
    NGINX_BUFFERED,
    NGINX_LUA,
    PORTKEY,
)
from tests.benchmarks.servers import (
    MODEL,
    NGINX_START,
    QUOTA_UNITS,
    Subject,
    cpu_seconds,
    find_nginx,
    resident_megabytes,
)
from tests.support.processes import Server, free_port, wait_for
from tests.support.stores import store_server

START_TIMEOUT_S = 180
"""LiteLLM alone takes half a minute where others have the cores."""
BUDGET_IMAGES = 10
UNITS_OF_IMAGE = 7_500
KEY, BUDGET_KEY, BY_IMAGE_KEY = "sk-load", "sk-budget", "sk-budget-by-image"
IMAGE_COST, COST_TOKENS = 0.01, 1_056
"""What an image costs at LiteLLM, in dollars, and the tokens that the provider reports for it."""
BY_TOKENS_PRICE = {
    "input_cost_per_token": 0.0,
    "output_cost_per_token": IMAGE_COST / COST_TOKENS,
    # What it reserves.
    "max_output_tokens": COST_TOKENS,
}
BY_IMAGE = "sample/image-by-image"

NGINX_CONFIGURATION = (
    "\n{modules}"
    + NGINX_START
    + """\
    {http}
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
            {location}
        }}
    }}
}}
"""
)
LUA_HTTP = """
    lua_package_path "{here}/?.lua;{lua_path};;";
    lua_package_cpath "{lua_cpath};;";
    init_by_lua_block {{ require("metering").init("unix:{store}") }}
"""
LUA_LOCATION = """
            proxy_buffering off;
            proxy_buffer_size 256k;
            proxy_buffers 8 256k;
            client_body_buffer_size 64k;
            access_by_lua_block { require("metering").admit() }
            log_by_lua_block { require("metering").settle() }
"""


@dataclass(frozen=True, slots=True)
class Account:
    """Whose budget is tried: a key that has room for ten images."""

    name: str
    headers: Mapping[str, str]
    model: str = MODEL


@dataclass(frozen=True, slots=True)
class Peer:
    """A peer under load, how it is called, and the processes that work for it."""

    name: str
    version: str
    address: str
    process: psutil.Process
    headers: Mapping[str, str]
    accounts: tuple[Account, ...]
    store: psutil.Process | None = None
    is_slow: bool = False
    """Whether it needs more time for as many requests that a figure can be made of."""

    def cpu_seconds(self) -> tuple[float, float]:
        """What all its processes have used, and what its store has."""
        return sum(map(cpu_seconds, self._own())), cpu_seconds(self.store) if self.store else 0.0

    def megabytes(self) -> tuple[float, float]:
        """The memory that its processes have in use, and that of its store."""
        own = sum(map(resident_megabytes, self._own()))
        return own, resident_megabytes(self.store) if self.store else 0.0

    def _own(self) -> list[psutil.Process]:
        return [self.process, *(each for each in self.process.children(recursive=True) if each != self.store)]


@dataclass(slots=True)
class Peers:
    """Those that run, and why each of the others does not."""

    running: list[Peer] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)


@contextmanager
def running_peers(folder: Path, names: Collection[str], say: Callable[[str], None]) -> Iterator[Peers]:
    """Those of the peers named that can be installed and started here; their files are in ``folder``."""
    peers = Peers()
    with ExitStack() as stack:
        provider = servers.start_provider(stack, folder).address
        starts: dict[str, Callable[[], Peer]] = {
            NGINX: lambda: _start_nginx(stack, folder, provider),
            NGINX_BUFFERED: lambda: _start_buffered(stack, folder, provider),
            BARE: lambda: _forwarder(BARE, _aiohttp(), servers._start_bare(stack, folder, provider)),
            LIGHTMETER: lambda: _start_lightmeter(stack, folder, provider),
            NGINX_LUA: lambda: _start_metering_nginx(stack, folder, provider),
            PORTKEY: lambda: _start_portkey(stack, folder, provider),
            LITELLM: lambda: _start_litellm(stack, folder, provider, has_budget=False),
            LITELLM_BUDGET: lambda: _start_litellm(stack, folder, provider, has_budget=True),
        }
        for name, start in starts.items():
            if name not in names:
                continue
            say(f"starting {name}")
            try:
                peers.running.append(start())
            except packages.Missing as error:
                peers.left_out[name] = str(error)
            except (OSError, RuntimeError, subprocess.SubprocessError, psutil.Error, redis.RedisError) as error:
                peers.left_out[name] = f"it did not start: {str(error).strip().splitlines()[0]}"
                say(f"{name} is left out: {error}")
        yield peers


def bearer(key: str) -> dict[str, str]:
    """The header that a key goes in."""
    return {"Authorization": f"Bearer {key}"}


# --- Those that the other comparison has, too -------------------------------------------------------------------------


def _forwarder(name: str, version_: str, subject: Subject) -> Peer:
    headers = bearer(subject.key)
    return Peer(name, version_, subject.address, subject.process, headers, (Account("", headers),))


def _aiohttp() -> str:
    return f"aiohttp {version('aiohttp')}"


def _start_nginx(stack: ExitStack, folder: Path, provider: str) -> Peer:
    nginx = find_nginx()
    if nginx is None:
        raise packages.Missing("there is no nginx: apt-get install nginx-light")
    told = subprocess.run([nginx, "-v"], check=True, capture_output=True, text=True, timeout=10).stderr
    return _forwarder(NGINX, told.rpartition("/")[2].strip(), servers._start_nginx(stack, nginx, folder, provider))


def _start_lightmeter(stack: ExitStack, folder: Path, provider: str) -> Peer:
    subject, admin = servers._start_lightmeter(stack, folder, provider, "lightmeter", Path(sys.executable).parent)
    limits = {"quota_units": BUDGET_IMAGES * UNITS_OF_IMAGE}
    key = admin("POST", "/admin/v1/keys", {"team": "budget", "limits": limits})["key"]
    accounts = (Account("", bearer(key)),)
    address, process, store = subject.address, subject.process, subject.store
    return Peer(LIGHTMETER, _lightmeter_version(), address, process, bearer(subject.key), accounts, store)


def _lightmeter_version() -> str:
    program = Path(sys.executable).with_name("lightmeter")
    told = subprocess.run([program, "--version"], check=True, capture_output=True, text=True, timeout=30)
    found = re.search(r"version (\S+)(?: \(commit ([0-9a-f]{7}))?", told.stdout)
    if found is None:
        raise RuntimeError(f"lightmeter --version says {told.stdout!r}")
    return f"{found[1]} at {found[2]}" if found[2] else found[1]


# --- nginx, buffered, and with a store --------------------------------------------------------------------------------


def _start_buffered(stack: ExitStack, folder: Path, provider: str) -> Peer:
    nginx = packages.install_nginx()
    address, process = _run_nginx(stack, nginx, folder / "nginx-buffered", provider, "", "", "")
    headers = bearer(KEY)
    return Peer(NGINX_BUFFERED, nginx.version.partition(",")[0], address, process, headers, (Account("", headers),))


def _start_metering_nginx(stack: ExitStack, folder: Path, provider: str) -> Peer:
    nginx = packages.install_nginx()
    own = folder / "nginx-lua"
    socket_path = folder / "metering.sock"
    flags = ("--unixsocket", str(socket_path), "--unixsocketperm", "777", "--appendonly", "yes")
    url, server = stack.enter_context(store_server("valkey", _folder(folder / "metering-store"), *flags))
    with redis.Redis.from_url(url) as client:
        for key, limit in ((KEY, QUOTA_UNITS), (BUDGET_KEY, BUDGET_IMAGES * UNITS_OF_IMAGE)):
            client.hset(f"account:{key}", mapping={"limit": limit, "posted": 0, "reserved": 0})
    http_lines = LUA_HTTP.format(
        here=packages.HERE, lua_path=nginx.lua_path, lua_cpath=nginx.lua_cpath, store=socket_path
    )
    address, process = _run_nginx(stack, nginx, own, provider, nginx.modules, http_lines, LUA_LOCATION)
    accounts = (Account("", bearer(BUDGET_KEY)),)
    store = psutil.Process(server.process.pid)
    return Peer(NGINX_LUA, nginx.version, address, process, bearer(KEY), accounts, store)


def _run_nginx(
    stack: ExitStack, nginx: packages.Nginx, own: Path, provider: str, modules: str, http_lines: str, location: str
) -> tuple[str, psutil.Process]:
    _folder(own)
    port = free_port()
    configuration = own / "nginx.conf"
    configuration.write_text(
        NGINX_CONFIGURATION.format(
            modules=modules,
            # Its worker would be nobody, who may not enter the temporary folder.
            user="user root;" if os.geteuid() == 0 else "",
            folder=own,
            http=http_lines,
            provider=provider.removeprefix("http://"),
            port=port,
            location=location,
        )
    )
    command = [nginx.program, "-p", str(own), "-c", str(configuration), "-e", str(own / "error.log")]
    server = stack.enter_context(servers._running(command, own / "log", nginx.environment))
    _wait_for_port(server, port, own / "error.log")
    return f"http://127.0.0.1:{port}", psutil.Process(server.process.pid)


# --- Portkey and LiteLLM ----------------------------------------------------------------------------------------------


def _start_portkey(stack: ExitStack, folder: Path, provider: str) -> Peer:
    portkey = packages.install_portkey()
    port = free_port()
    command = [*portkey.command, "--headless", f"--port={port}"]
    server = stack.enter_context(servers._running(command, folder / "portkey.log", {"NODE_ENV": "production"}))
    _wait_for_port(server, port, folder / "portkey.log")
    headers = {**bearer("sample"), "x-portkey-provider": "openai", "x-portkey-custom-host": f"{provider}/v1"}
    process = psutil.Process(server.process.pid)
    return Peer(PORTKEY, portkey.version, f"http://127.0.0.1:{port}", process, headers, (Account("", headers),))


def _start_litellm(stack: ExitStack, folder: Path, provider: str, *, has_budget: bool) -> Peer:
    litellm = packages.install_litellm()
    own = _folder(folder / ("litellm-budget" if has_budget else "litellm"))
    store = None
    settings: dict[str, object] = {"master_key": KEY}
    if has_budget:
        url, stores_server = stack.enter_context(store_server("valkey", _folder(folder / "litellm-store")))
        store = psutil.Process(stores_server.process.pid)
        settings = _give_budgets(own, int(url.rpartition(":")[2].partition("/")[0]))
    configuration = own / "config.yaml"
    # JSON is YAML.
    configuration.write_text(
        json.dumps(
            {
                "model_list": [
                    _litellm_model(MODEL, provider, BY_TOKENS_PRICE),
                    _litellm_model(BY_IMAGE, provider, {"output_cost_per_image": IMAGE_COST}),
                ],
                "general_settings": settings,
                "litellm_settings": {"enable_post_custom_auth_checks": has_budget},
            }
        )
    )
    port = free_port()
    command = [str(litellm.program), "--config", str(configuration), "--host", "127.0.0.1", "--port", str(port)]
    environment = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR", "LITELLM_TELEMETRY": "False"}
    server = stack.enter_context(servers._running(command, own / "log", environment))
    wait_for(lambda: _is_alive(port) or server.process.poll() is not None, "LiteLLM", START_TIMEOUT_S)
    if server.process.poll() is not None:
        raise RuntimeError(f"it ended with status {server.process.returncode}:\n{server.output}")
    accounts: tuple[Account, ...] = (Account("", bearer(KEY)),)
    if has_budget:
        by_image = Account("priced by the image", bearer(BY_IMAGE_KEY), BY_IMAGE)
        accounts = (Account("priced by tokens", bearer(BUDGET_KEY)), by_image)
    process = psutil.Process(server.process.pid)
    name = LITELLM_BUDGET if has_budget else LITELLM
    address = f"http://127.0.0.1:{port}"
    return Peer(name, litellm.version, address, process, bearer(KEY), accounts, store, is_slow=True)


def _litellm_model(name: str, provider: str, price: Mapping[str, float]) -> dict[str, object]:
    parameters = {"model": "openai/image-1", "api_base": f"{provider}/v1", "api_key": "sample"}
    return {"model_name": name, "litellm_params": parameters, "model_info": {"mode": "image_generation", **price}}


def _give_budgets(own: Path, store_port: int) -> dict[str, object]:
    """The settings with which LiteLLM checks the keys that are written here, and counts in its store."""
    # It lets the request through that crosses a budget: with half an image less, no rounding decides on the eleventh.
    dollars = (BUDGET_IMAGES - 0.5) * IMAGE_COST
    by_model = {BY_IMAGE: {"budget_limit": dollars, "time_period": "30d"}}
    keys = {
        KEY: {"max_budget": 1e9},
        BUDGET_KEY: {"max_budget": dollars},
        BY_IMAGE_KEY: {"max_budget": dollars, "model_max_budget": by_model},
    }
    (own / "keys.json").write_text(json.dumps(keys))
    shutil.copy(packages.HERE / "litellm_key.py", own)
    return {
        "master_key": "sk-master",
        "custom_auth": "litellm_key.check",
        "custom_auth_run_common_checks": True,
        "coordination_redis": {"host": "127.0.0.1", "port": store_port},
    }


# --- Waiting ----------------------------------------------------------------------------------------------------------


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


def _wait_for_port(server: Server, port: int, log: Path) -> None:
    wait_for(lambda: servers._listens(port) or server.process.poll() is not None, "an open port")
    if server.process.poll() is not None:
        said = log.read_text(errors="replace") if log.exists() else server.output
        raise RuntimeError(f"it ended with status {server.process.returncode}:\n{said}")


def _is_alive(port: int) -> bool:
    with suppress(OSError, http.client.HTTPException, socket.timeout):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        with closing(connection):
            connection.request("GET", "/health/liveliness")
            return connection.getresponse().status == http.HTTPStatus.OK
    return False
