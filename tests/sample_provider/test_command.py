"""The real process, on a real port."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from click.testing import CliRunner

from proxy.sample_provider.command import sample_provider

ROOT = Path(__file__).parents[2]
KEY = {"Authorization": "Bearer x"}


@contextlib.asynccontextmanager
async def running(*flags: str) -> AsyncIterator[tuple[Process, str]]:
    """A sample provider in a process of its own, and its address; it is gone afterwards whatever happens."""
    command = (sys.executable, "-m", "proxy.sample_provider", "--port", "0", *flags)
    process = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE, cwd=ROOT)
    try:
        assert process.stdout is not None
        line = (await process.stdout.readline()).decode()
        assert line.startswith("sample provider on http://127.0.0.1:")
        assert line.endswith("\n")
        yield process, line.split()[-1]
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def images_from(address: str, prompt: str = "a blue cube") -> int:
    async with (
        aiohttp.ClientSession(headers=KEY) as session,
        session.post(f"{address}/v1/images/generations", json={"prompt": prompt}) as response,
    ):
        assert response.status == 200
        return len((await response.json())["data"])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_it_serves_until_it_is_told_to_stop(number: signal.Signals) -> None:
    async with running("--default-n", "2", "--exit-with-stdin") as (process, address):
        assert await images_from(address) == 2
        assert await images_from(address, "[sample images=3] x") == 3
        os.kill(process.pid, number)
        assert await process.wait() == 0


async def test_it_stops_in_the_middle_of_an_answer() -> None:
    async with running("--stall-after", "10") as (process, address), aiohttp.ClientSession(headers=KEY) as session:
        response = await session.post(f"{address}/v1/images/generations", json={"prompt": "x"})
        assert await response.content.readexactly(10)
        os.kill(process.pid, signal.SIGTERM)
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.read()
        assert await process.wait() == 0


async def test_it_ends_with_its_stdin() -> None:
    async with running("--exit-with-stdin") as (process, address):
        assert await images_from(address) == 1
        assert process.stdin is not None
        process.stdin.close()
        assert await process.wait() == 0


async def test_without_being_told_to_it_outlives_its_stdin() -> None:
    async with running() as (process, address):
        assert process.stdin is not None
        process.stdin.close()
        assert await images_from(address) == 1
        assert process.returncode is None


def test_a_port_in_use_is_named_with_the_way_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = CliRunner().invoke(sample_provider, ["--port", str(port)])
    assert result.exit_code == 1
    assert f"port {port} of 127.0.0.1 is in use" in result.output
    assert "--port 0" in result.output


def test_an_address_that_is_not_ours_is_an_error_without_a_traceback() -> None:
    result = CliRunner().invoke(sample_provider, ["--host", "192.0.2.1", "--port", "0"])
    assert result.exit_code == 1
    assert result.output.startswith("Error: cannot listen on 192.0.2.1 port 0: ")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--delay-ms", "-1"], "'-1': it must be a whole number"),
        (["--answer", "png"], "must be url or b64_json"),
        (["--failure-rate", "1.5"], "must be a number from 0 to 1"),
        (["--status", "200"], "from 300 to 599"),
        (["--port", "65536"], "65536"),
    ],
)
def test_a_bad_flag_is_refused(flags: list[str], message: str) -> None:
    result = CliRunner().invoke(sample_provider, flags)
    assert result.exit_code == 2
    assert message in result.output


def test_help_names_every_flag() -> None:
    result = CliRunner().invoke(sample_provider, ["--help"])
    assert result.exit_code == 0
    for name in ("--host", "--port", "--exit-with-stdin", "--delay-ms", "--truncate-after", "--drop-connection"):
        assert name in result.output
