"""Clients that ask all the time."""

from __future__ import annotations

import http.client
import json
import threading
from urllib.parse import urlsplit


class Load:
    """Clients that keep their connections, take whatever is answered, and never try again."""

    def __init__(self, url: str, key: str, count: int, *, delay_ms: int = 7) -> None:
        """The provider takes ``delay_ms`` for each request of the second client, and more for those after it."""
        self.statuses: list[int] = []
        self.failures: list[str] = []
        self._address = urlsplit(url).netloc
        self._key = key
        self._delay_ms = delay_ms
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._go_on, args=(number,)) for number in range(count)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End all of them."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _go_on(self, number: int) -> None:
        connection = http.client.HTTPConnection(self._address, timeout=20)
        prompt = f"[sample delay_ms={number * self._delay_ms}] a cube"
        body = json.dumps({"model": "acme/image-1", "prompt": prompt})
        headers = {"Authorization": f"Bearer {self._key}", "Content-Type": "application/json"}
        while not self._stop.is_set():
            try:
                connection.request("POST", "/v1/images/generations", body, headers)
                answer = connection.getresponse()
                answer.read()
                self.statuses.append(answer.status)
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(repr(error))
                connection.close()
        connection.close()
