"""A provider that accepts tasks, on a real socket, in the shapes that each of the dialects publishes.

A task stays pending until the test lets it go: then it is done, or ends as the test says.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol

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

    def __init__(self, dialect: str) -> None:
        """Nothing has come yet; it answers as providers of ``dialect`` do."""
        self.dialect = dialect
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
        self.tells_images_apart = False
        self.half: threading.Event | None = None
        self.broken_images: set[str] = set()
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
            if path.startswith("http://"):
                # As proxies are asked.
                path = "/" + path.removeprefix("http://").partition("/")[2]
            path, _, query = path.partition("?")
            if path.startswith("/files/"):
                self.fetches.append(headers)
                if any(path.endswith(f"-{number}.png") for number in self.broken_images):
                    return Look(404)
                image = self.image + (path.encode() if self.tells_images_apart else b"")
                return Look(self.image_status, {"Content-Type": self.image_kind}, image)
            self.keys.append(headers.get("x-key") or headers.get("Authorization", "").rpartition(" ")[2])
            if method != "POST" or path.endswith("/cancel"):
                return self._answer_about(path, query)
            ticket = self._accept(path, body)
        if self.tickets is not None:
            self.tickets.wait(HOLD_LIMIT_S)
        return ticket

    def _accept(self, path: str, body: bytes) -> Look:
        if self.submit is not None:
            return self.submit
        task = Task(f"task-{len(self.tasks) + 1}", json.loads(body), self.end, self.holds)
        self.paths.append(path)
        self.tasks[task.id] = task
        return _SHAPES[self.dialect].ticket(task, self.poll_host or self.url, path)

    def _answer_about(self, path: str, query: str) -> Look:
        found = _id.search(query or path)
        task = self.tasks[found[0] if found else ""]
        if path.endswith("/cancel"):
            task.cancelled, task.is_held, task.end = True, False, "cancelled"
            return _json(202, {"status": "CANCELLATION_REQUESTED"})
        task.polls += 1
        if self.looks:
            return self.looks.pop(0)
        if task.end == "unknown" and not task.is_held:
            return _json(404, {"status": "Task not found", "detail": "not found"})
        addresses = [self._address(task, number) for number in range(task.images)]
        return _SHAPES[self.dialect].status(task, addresses, path)

    def _address(self, task: Task, number: int = 0) -> str:
        return f"{self.result_host or self.url}/files/{task.id}-{number}.png?sig=a%2Bb%2F"


def _json(status: int, answer: object) -> Look:
    return Look(status, {"Content-Type": "application/json"}, json.dumps(answer).encode())


class _Shape(Protocol):
    """How a kind of provider answers."""

    def ticket(self, task: Task, base: str, path: str) -> Look: ...

    def status(self, task: Task, addresses: list[str], path: str) -> Look: ...


class _Bfl(_Shape):
    def ticket(self, task: Task, base: str, path: str) -> Look:
        poll_url = f"{base}/v1/get_result?id={task.id}"
        return _json(200, {"id": task.id, "polling_url": poll_url, "cost": 4.0, "input_mp": 0.0, "output_mp": 1.0})

    def status(self, task: Task, addresses: list[str], path: str) -> Look:
        words = {"done": "Ready", "moderated": "Content Moderated", "failed": "Error"}
        said = "Pending" if task.is_held else words.get(task.end, task.end)
        result = {"sample": addresses[0], "prompt": task.body["prompt"], "seed": 42} if said == "Ready" else None
        return _json(200, {"id": task.id, "status": said, "result": result, "progress": None, "details": None})


class _Fal(_Shape):
    def ticket(self, task: Task, base: str, path: str) -> Look:
        # What stands below a model's name is left out of where its requests are.
        app = "/".join(path.split("/")[:3])
        place = f"{base}{app}/requests/{task.id}"
        urls = {"response_url": place, "status_url": f"{place}/status", "cancel_url": f"{place}/cancel"}
        task.images = task.body.get("num_images", 1)
        return _json(200, {"status": "IN_QUEUE", "request_id": task.id, **urls, "logs": None, "queue_position": 0})

    def status(self, task: Task, addresses: list[str], path: str) -> Look:
        if path.endswith("/status"):
            if task.is_held:
                return _json(202, {"status": "IN_PROGRESS", "request_id": task.id, "logs": None})
            failed = {"error": "Request was cancelled", "error_type": "client_cancelled"}
            more = failed if task.end == "cancelled" else {}
            return _json(200, {"status": "COMPLETED", "request_id": task.id, "metrics": {"inference_time": 2}, **more})
        if task.end == "moderated":
            said = {
                "loc": ["body", "prompt"],
                "msg": "flagged by a content checker",
                "type": "content_policy_violation",
            }
            return _json(422, {"detail": [said]})
        if task.end == "failed":
            return _json(500, {"detail": [{"loc": ["body"], "msg": "it broke", "type": "internal_server_error"}]})
        images = [{"url": url, "content_type": "image/png", "width": 64, "height": 64} for url in addresses]
        return _json(200, {"images": images, "seed": 42, "has_nsfw_concepts": [False], "prompt": task.body["prompt"]})


class _Replicate(_Shape):
    def ticket(self, task: Task, base: str, path: str) -> Look:
        task.images = task.body["input"].get("num_outputs", 1)
        get = f"{base}/v1/predictions/{task.id}"
        urls = {"get": get, "cancel": f"{get}/cancel", "web": f"https://replicate.com/p/{task.id}"}
        return _json(
            201, {"id": task.id, "status": "starting", "input": task.body["input"], "error": None, "urls": urls}
        )

    def status(self, task: Task, addresses: list[str], path: str) -> Look:
        words = {"done": "succeeded", "moderated": "failed", "cancelled": "canceled"}
        said = "processing" if task.is_held else words.get(task.end, task.end)
        errors = {"moderated": "The input or output was flagged as sensitive. Please try again. (E005)"}
        error = errors.get(task.end, "CUDA out of memory") if said == "failed" else None
        output = (addresses[0] if len(addresses) == 1 else addresses) if said == "succeeded" else None
        return _json(200, {"id": task.id, "status": said, "output": output, "error": error, "logs": "", "metrics": {}})


_SHAPES: Mapping[str, _Shape] = {"bfl": _Bfl(), "fal": _Fal(), "replicate": _Replicate()}
_id = re.compile("task-[0-9]+")


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1_024

    def handle_error(self, _request: object, _client_address: object) -> None:
        """A gateway that goes away is no news."""


@contextmanager
def polled_provider(dialect: str = "bfl") -> Iterator[PolledProvider]:
    """One on a free port, for as long as the block lasts."""
    provider = PolledProvider(dialect)

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
            body, half = look.body, provider.half
            if half is not None and self.path.startswith("/files/"):
                self.wfile.write(body[: len(body) // 2])
                half.wait(HOLD_LIMIT_S)
                body = body[len(body) // 2 :]
            self.wfile.write(body)

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
