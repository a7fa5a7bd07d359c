"""As much as goes through: one wrk with one thread, closed loop, for one slice of time on one subject."""

from __future__ import annotations

import json
import math
import re
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass, replace
from pathlib import Path

from tests.benchmarks.figures import Slice
from tests.benchmarks.servers import EDITS_PATH, GEMINI_MODEL, GEMINI_PATH, JSON, MODEL, PATH, Subject, call, key_header
from tests.support.forms import FORM, PNG, form_of

GIGABYTE = 10**9
ANSWER_TIMEOUT_S = 10
TRIES = (1, 4, 16)
"""How many times as long it is tried where nothing was answered: others may have had the cores."""
LATE_S = 15
"""How long after its time wrk may take to end."""

IMAGE_BYTES = 4_000_000
PROMPT = "A clean product photo of a translucent blue cube on a white table"

# wrk's own words are for people, and round. `status` counts what is neither 2xx nor 3xx; no subject sends a 3xx.
SCRIPT = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "{content_type}"
wrk.headers["{header}"] = "{value}"
wrk.body = io.open("{body}", "rb"):read("*a")

function done(summary, latency, requests)
    local failed = summary.errors
    io.write(string.format('FIGURES {{"requests": %.0f, "bytes": %.0f, "micros": %.0f, "failed": %.0f}}\\n',
        summary.requests, summary.bytes, summary.duration,
        failed.connect + failed.read + failed.write + failed.timeout + failed.status))
end
"""


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked, and what its answer has once for each image."""

    body: bytes
    mark: bytes
    path: str = PATH
    images: int = 1
    content_type: str = JSON

    def wire(self, key: str) -> bytes:
        """The whole request, as it is sent with this key."""
        name, value = key_header(self.path, key)
        head = (
            f"POST {self.path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {self.content_type}\r\n"
            f"Content-Length: {len(self.body)}\r\n{name}: {value}\r\n\r\n"
        )
        return head.encode() + self.body


@dataclass(frozen=True, slots=True)
class Load:
    """One kind of request, and how many connections ask for it at a time."""

    request: Request
    connections: int
    answer_bytes: int
    """What an answer has at the least."""
    in_gigabytes: bool
    warm_up_requests: int
    untranslated: Request | None = None
    """The same for a subject that does not translate, where the provider knows other words."""

    def request_to(self, subject: Subject) -> Request:
        """What this subject is asked."""
        return self.request if subject.translates or self.untranslated is None else self.untranslated


def _json(**fields: object) -> bytes:
    return json.dumps(fields, separators=(",", ":")).encode()


LARGE_PROMPT = f"[sample image_bytes={IMAGE_BYTES}] {PROMPT}"
BASE64_MARK = b'"b64_json"'

SMALL = Load(
    Request(
        _json(model=MODEL, prompt=f"{PROMPT}, soft light", n=1, size="1024x1024", user="benchmark-001"), mark=b'"url"'
    ),
    connections=64,
    answer_bytes=100,
    in_gigabytes=False,
    warm_up_requests=100,
)
LARGE = Load(
    Request(_json(model=MODEL, prompt=LARGE_PROMPT), BASE64_MARK),
    connections=8,
    answer_bytes=IMAGE_BYTES,
    in_gigabytes=True,
    warm_up_requests=5,
)
PARTIAL_IMAGES = 2
EVENT_PROMPT = f"[sample image_bytes={IMAGE_BYTES // (PARTIAL_IMAGES + 1)}] {PROMPT}"
EVENTS = replace(
    LARGE,
    request=Request(
        _json(model=MODEL, prompt=EVENT_PROMPT, stream=True, partial_images=PARTIAL_IMAGES),
        BASE64_MARK,
        images=PARTIAL_IMAGES + 1,
    ),
)
GEMINI = replace(
    LARGE,
    request=Request(_json(model=GEMINI_MODEL, prompt=LARGE_PROMPT), BASE64_MARK),
    untranslated=Request(
        _json(
            contents=[{"role": "user", "parts": [{"text": LARGE_PROMPT}]}],
            generationConfig={"responseModalities": ["TEXT", "IMAGE"]},
        ),
        mark=b'"inlineData"',
        path=GEMINI_PATH,
    ),
)
UPLOAD_BYTES = 2_000_000
UPLOADS = Load(
    Request(
        form_of((("model", MODEL), ("prompt", PROMPT), ("image", PNG + bytes(UPLOAD_BYTES - len(PNG))))),
        b'"url"',
        EDITS_PATH,
        content_type=FORM,
    ),
    connections=8,
    answer_bytes=100,
    in_gigabytes=False,
    warm_up_requests=5,
)
LOADS = {"small": SMALL, "large": LARGE, "events": EVENTS, "gemini": GEMINI, "uploads": UPLOADS}


def find_wrk() -> str | None:
    """wrk's path."""
    return shutil.which("wrk")


def warm_up(subject: Subject, load: Load) -> None:
    """A few requests one after the other. Raises RuntimeError where an answer is not as it should be."""
    request = load.request_to(subject)
    for _ in range(load.warm_up_requests):
        status, answer = call(subject.port, "POST", request.path, subject.key, request.body, request.content_type)
        if status != 200:
            raise RuntimeError(f"{subject.name} answers {status}: {answer[:500].decode(errors='replace')}")
        if len(answer) < load.answer_bytes or answer.count(request.mark) != request.images:
            raise RuntimeError(f"{subject.name} answers with {len(answer):,} bytes that are not what was asked for")


def press(wrk: str, subject: Subject, load: Load, seconds: float, folder: Path) -> Slice:
    """Ask ``subject`` for as much as it gives for ``seconds``, or longer where nothing is answered within them.

    Raises RuntimeError where wrk does not tell.
    """
    for times in TRIES:
        slice_ = _press(wrk, subject, load, seconds * times, folder)
        if slice_ is not None:
            return slice_
    raise RuntimeError(f"{subject.name} answered no request within {seconds * TRIES[-1]:.1f} s")


def _press(wrk: str, subject: Subject, load: Load, seconds: float, folder: Path) -> Slice | None:
    script = folder / "load.lua"
    request = load.request_to(subject)
    header, value = key_header(request.path, subject.key)
    body = folder / "load.body"
    body.write_bytes(request.body)
    script.write_text(SCRIPT.format(header=header, value=value, body=body, content_type=request.content_type))
    before = _cpu_seconds(subject)
    output = run_wrk(wrk, load.connections, seconds, script, subject.address + request.path)
    cpu_s = [after - at_start for at_start, after in zip(before, _cpu_seconds(subject), strict=True)]
    return _read(output, subject, load, cpu_s)


def run_wrk(wrk: str, connections: int, seconds: float, script: Path, url: str) -> str:
    """What wrk says of ``seconds`` of load by ``script``; it counts whole seconds only, and tells when interrupted."""
    flags = ["-t1", f"-c{connections}", f"-d{math.ceil(seconds) + 1}s", f"--timeout={ANSWER_TIMEOUT_S}s"]
    process = subprocess.Popen(
        [wrk, *flags, "-s", str(script), url],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    with process:
        try:
            time.sleep(seconds)
            process.send_signal(signal.SIGINT)
            output, _ = process.communicate(timeout=LATE_S)
        finally:
            process.kill()
    return output


def _cpu_seconds(subject: Subject) -> tuple[float, float, float]:
    return (*subject.cpu_seconds(), subject.provider_cpu_seconds())


def _read(output: str, subject: Subject, load: Load, cpu_s: list[float]) -> Slice | None:
    found = re.search(r"^FIGURES (.*)$", output, re.MULTILINE)
    if found is None:
        raise RuntimeError(f"wrk told no figures of {subject.name}:\n{output}")
    told = json.loads(found[1])
    requests, size, seconds, failed = told["requests"], told["bytes"], told["micros"] / 1e6, told["failed"]
    if requests <= failed:
        return None
    if size < requests * load.answer_bytes and not failed:
        raise RuntimeError(f"{subject.name} gave {requests:,} answers of {size / requests:,.0f} bytes: they are cut")
    return Slice(
        rate=size / seconds / GIGABYTE if load.in_gigabytes else requests / seconds,
        requests=requests,
        failed=failed,
        seconds=seconds,
        cpu_s=cpu_s[0],
        store_cpu_s=cpu_s[1],
        provider_cpu_s=cpu_s[2],
    )
