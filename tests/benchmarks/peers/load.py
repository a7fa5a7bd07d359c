"""As much as goes through a peer, and how long a request takes that is alone: one wrk with one thread, closed loop."""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from tests.benchmarks.peers.figures import Slice
from tests.benchmarks.peers.starting import Peer
from tests.benchmarks.servers import PATH
from tests.benchmarks.throughput import GIGABYTE, Load, run_wrk

CALL_TIMEOUT_S = 60
WARM_UP_REQUESTS_MOST = 20

SCRIPT = """
wrk.method = "POST"
{headers}
wrk.body = [==[{body}]==]

function done(summary, latency, requests)
    local failed = summary.errors
    io.write(string.format(
        'FIGURES {{"requests": %.0f, "bytes": %.0f, "micros": %.0f, "failed": %.0f, "p50": %.0f, "p99": %.0f}}\\n',
        summary.requests, summary.bytes, summary.duration,
        failed.connect + failed.read + failed.write + failed.timeout + failed.status,
        latency:percentile(50), latency:percentile(99)))
end
"""


class NothingAnswered(RuntimeError):
    """A slice of time in which not one answer came whole."""


def call(peer: Peer, headers: Mapping[str, str], body: bytes) -> tuple[int, bytes]:
    """One request on a connection of its own: the status and the whole body of the answer."""
    port = int(peer.address.rpartition(":")[2])
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=CALL_TIMEOUT_S)
    with closing(connection):
        connection.request("POST", PATH, body, {**headers, "Content-Type": "application/json"})
        response = connection.getresponse()
        return response.status, response.read()


def warm_up(peer: Peer, load: Load) -> None:
    """A few requests one after the other. Raises RuntimeError where an answer is not as it should be."""
    for _ in range(min(load.warm_up_requests, WARM_UP_REQUESTS_MOST)):
        status, answer = call(peer, peer.headers, load.request.body)
        if status != http.HTTPStatus.OK:
            raise RuntimeError(f"it answers {status}: {answer[:500].decode(errors='replace')}")
        if len(answer) < load.answer_bytes or load.request.mark not in answer:
            raise RuntimeError(f"it answers with {len(answer):,} bytes that are no such image")


def press(wrk: str, peer: Peer, load: Load, connections: int, seconds: float, folder: Path) -> Slice:
    """Ask ``peer`` for as much as it gives on so many connections. Raises RuntimeError where it gives nothing."""
    script = folder / "peers.lua"
    headers = {**peer.headers, "Content-Type": "application/json"}
    lines = "\n".join(f'wrk.headers["{name}"] = "{value}"' for name, value in headers.items())
    script.write_text(SCRIPT.format(headers=lines, body=load.request.body.decode()))
    before = peer.cpu_seconds()
    output = run_wrk(wrk, connections, seconds, script, peer.address + PATH)
    own, stores = (later - earlier for earlier, later in zip(before, peer.cpu_seconds(), strict=True))
    return read(output, load, own, stores)


def read(output: str, load: Load, cpu_s: float, store_cpu_s: float) -> Slice:
    """What wrk has told. Raises RuntimeError where it tells nothing, or nothing was answered whole."""
    found = re.search(r"^FIGURES (.*)$", output, re.MULTILINE)
    if found is None:
        raise RuntimeError(f"wrk told no figures:\n{output}")
    told = json.loads(found[1])
    answered, seconds = told["requests"] - told["failed"], told["micros"] / 1e6
    if answered <= 0:
        raise NothingAnswered(f"no request was answered within {seconds:.1f} s")
    # What is on its way when the time is over is counted in bytes alone.
    if told["bytes"] < answered * load.answer_bytes:
        raise RuntimeError(f"{answered:,} answers of {told['bytes'] / answered:,.0f} bytes: they are cut")
    return Slice(
        rate=told["bytes"] / seconds / GIGABYTE if load.in_gigabytes else answered / seconds,
        requests=answered,
        failed=told["failed"],
        cpu_s=cpu_s,
        store_cpu_s=store_cpu_s,
        p50_ms=told["p50"] / 1e3,
        p99_ms=told["p99"] / 1e3,
    )
