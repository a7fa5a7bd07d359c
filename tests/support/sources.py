"""Where uploads lie in unit tests: in memory."""

from __future__ import annotations

from typing import Any

from proxy.domain.requests.inputs import Upload


class Bytes:
    """See ``Source``."""

    def __init__(self, data: bytes = b"") -> None:
        self.data = data

    async def read(self, start: int, size: int) -> bytes:
        return self.data[start : start + size]


def upload(name: str = "image", data: bytes = b"1234", **more: Any) -> Upload:
    """An uploaded file of these bytes."""
    given = {"file_name": "cat.png", "kind": "image/png", "start": 0, "size_bytes": len(data), "source": Bytes(data)}
    return Upload(name=name, **{**given, **more})
