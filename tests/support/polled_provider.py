"""A provider that accepts tasks, on a real socket, in the shapes that each of the dialects publishes.

A task stays pending until the test lets it go: then it is done, or ends as the test says.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from proxy.sample_provider.drawing import draw_picture

HOLD_LIMIT_S = 30.0


@dataclass
class Task:
    """One task: ``end`` is the word of its provider for how it ends, once it is not ``held`` any more."""

    id: str
    body: dict[str, Any]
    end: str
    is_held: bool
    images: int = 1
    polls: int = 0
    cancelled: bool = False


@dataclass
class Look:
    """An answer to a poll in place of the task's own."""

    status: int = 503
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b"{}"


class PolledProvider:
    """What runs. ``holds`` and ``end`` are those of tasks to come, ``looks`` answer the next polls."""

    def __init__(self) -> None:
        """Nothing has come yet."""
        self.url = ""
        self._lock = threading.Lock()
        self.reset()

    def reset(self) -> None:
        """Be as at the start."""
        self.tasks: dict[str, Task] = {}
        self.paths: list[str] = []
        self.holds = False
        self.tickets: threading.Event | None = None
        self.end = "done"
        self.image = draw_picture("a cube", 64, 64)
        self.image_status = 200
        self.image_kind = "image/png"
        self.submit: Look | None = None
        self.poll_host = ""
        self.result_host = ""
        self.looks: list[Look] = []
        self.fetches: list[Mapping[str, str]] = []
        self.keys: list[str] = []

    @property
    def polls(self) -> int:
        """How often a task was asked for."""
        return sum(task.polls for task in self.tasks.values())

    @property
    def only(self) -> Task:
        """The one task that there is."""
        (task,) = self.tasks.values()
        return task

    def release(self, end: str | None = None) -> None:
        """Let the tasks go on that are held, to another ``end`` where one is given."""
        for task in self.tasks.values():
            task.end = end or task.end
            task.is_held = False

    def release_all_but(self, one: Task) -> None:
        """The same, of the others."""
        for task in self.tasks.values():
            task.is_held = task.is_held and task is one

    def hold_tickets(self) -> threading.Event:
        """Answer no request before the event is set: it was accepted, and nobody knows."""
        self.tickets = threading.Event()
        return self.tickets

    def forget(self) -> None:
        """Know nothing of the tasks any more."""
        self.release("unknown")

    # --- What it answers ----------------------------------------------------------------------------------------------

    def answer(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Look:
        """The answer to one request."""
        with self._lock:
            path, _, query = path.partition("?")
            if path.startswith("/files/"):
                self.fetches.append(headers)
                return Look(self.image_status, {"Content-Type": self.image_kind}, self.image)
            self.keys.append(headers.get("x-key", ""))
            if method == "POST" and "/cancel" not in path:
                ticket = self._accept(path, body)
            else:
                return self._bfl_status(query)
        if self.tickets is not None:
            self.tickets.wait(HOLD_LIMIT_S)
        return ticket

    def _accept(self, path: str, body: bytes) -> Look:
        if self.submit is not None:
            return self.submit
        number = f"task-{len(self.tasks) + 1}"
        self.paths.append(path)
        self.tasks[number] = Task(number, json.loads(body), self.end, self.holds)
        poll_url = f"{self.poll_host or self.url}/v1/get_result?id={number}"
        return _json(200, {"id": number, "polling_url": poll_url, "cost": 4.0, "input_mp": 0.0, "output_mp": 1.0})

    def _bfl_status(self, query: str) -> Look:
        task = self.tasks[query.removeprefix("id=")]
        task.polls += 1
        if self.looks:
            return self.looks.pop(0)
        if task.is_held:
            said, result = "Pending", None
        elif task.end == "unknown":
            return _json(404, {"id": task.id, "status": "Task not found", "result": None})
        elif task.end == "done":
            said, result = "Ready", {"sample": self._address(task), "prompt": task.body["prompt"], "seed": 42}
        else:
            said, result = task.end, None
        return _json(200, {"id": task.id, "status": said, "result": result, "progress": None, "details": None})

    def _address(self, task: Task, number: int = 0) -> str:
        return f"{self.result_host or self.url}/files/{task.id}-{number}.png?sig=a%2Bb%2F"


def _json(status: int, answer: object) -> Look:
    return Look(status, {"Content-Type": "application/json"}, json.dumps(answer).encode())


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1_024

    def handle_error(self, _request: object, _client_address: object) -> None:
        """A gateway that goes away is no news."""


@contextmanager
def polled_provider() -> Iterator[PolledProvider]:
    """One on a free port, for as long as the block lasts."""
    provider = PolledProvider()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            look = provider.answer(self.command, self.path, dict(self.headers), body)
            self.send_response(look.status)
            for name, value in {**look.headers, "Content-Length": str(len(look.body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(look.body)

        do_GET = do_POST = do_PUT = _serve  # noqa: N815 - the library's names

        def log_message(self, *_arguments: object) -> None:
            """Tests count for themselves."""

    with _Server(("127.0.0.1", 0), Handler) as server:
        provider.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield provider
        finally:
            server.shutdown()
            thread.join()
