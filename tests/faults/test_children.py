"""However a command ends, no process of its own outlives it, and the store's data is whole at the next start."""

from __future__ import annotations

import signal
from pathlib import Path

import psutil
import pytest

from tests.support.gateways import SampleProvider, configuration, running_gateway
from tests.support.processes import Server, python_module, running, wait_for

ENDS = {
    "killed": (signal.SIGKILL,),
    "terminated": (signal.SIGTERM,),
    "terminated twice": (signal.SIGTERM, signal.SIGTERM),
    "interrupted twice": (signal.SIGINT, signal.SIGINT),
    "hung up": (signal.SIGHUP, signal.SIGKILL),
    "aborted": (signal.SIGABRT,),
}


def children_of(server: Server) -> list[psutil.Process]:
    """All that it has started."""
    return psutil.Process(server.process.pid).children(recursive=True)


def end(server: Server, signals: tuple[int, ...]) -> None:
    for number in signals:
        server.process.send_signal(number)
    server.process.wait(20)


def wait_for_all(children: list[psutil.Process]) -> None:
    # A process id alone may be somebody else's by now.
    wait_for(lambda: not any(child.is_running() for child in children), "the end of every child", timeout_s=10)


@pytest.mark.parametrize("signals", ENDS.values(), ids=ENDS)
def test_of_a_gateway(provider: SampleProvider, tmp_path: Path, signals: tuple[int, ...]) -> None:
    store = {"appendfsync": "everysec"}
    toml = configuration(f"embedded:{tmp_path}/data", provider.url, store=store)
    with running_gateway(tmp_path / "first", toml) as gateway:
        key = gateway.make_key(100_000)
        assert gateway.generate(key).status == 200
        children = children_of(gateway.server)
        assert [child.name() for child in children] == ["valkey-server"]
        end(gateway.server, signals)
        wait_for_all(children)
    with running_gateway(tmp_path / "second", toml) as following:
        # A store that was told to end has written all of it, whatever appendfsync says.
        assert [entry["outcome"] for entry in following.ledger(key)] == ["delivered"]
        following.check_books(key)


@pytest.mark.parametrize("signals", ENDS.values(), ids=ENDS)
def test_of_a_demo(tmp_path: Path, signals: tuple[int, ...]) -> None:
    command = python_module("proxy.cli", "demo", "--port", "0", "--folder", str(tmp_path / "demo"))
    with running(command, tmp_path / "log") as demo:
        demo.wait_for_output(r"The requests are logged in")
        children = children_of(demo)
        assert len(children) == 2
        end(demo, signals)
        wait_for_all(children)
