"""The console's files: read at start, few and small, and sent with what keeps browsers careful with them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from aiohttp import web
from aiohttp.typedefs import Handler

FOLDER = Path(__file__).parent / "static"
TYPES: Mapping[str, str] = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    # Asked for again each time, and answered by 304: after an update no page is made of two versions.
    "Cache-Control": "no-cache",
}


@dataclass(frozen=True, slots=True)
class StaticFile:
    """A file as it is sent."""

    body: bytes
    content_type: str
    etag: str

    @classmethod
    def read(cls, path: Path) -> StaticFile:
        """The file at ``path``."""
        body = path.read_bytes()
        return cls(body, TYPES[path.suffix], f'"{sha256(body).hexdigest()[:32]}"')

    async def show(self, request: web.Request) -> web.Response:
        """The file, or 304 to who has it."""
        headers = {**HEADERS, "ETag": self.etag}
        if self.etag in [
            each.strip().removeprefix("W/") for each in request.headers.get("If-None-Match", "").split(",")
        ]:
            return web.Response(status=304, headers=headers)
        return web.Response(body=self.body, headers={**headers, "Content-Type": self.content_type})


def read_files(folder: Path) -> dict[str, StaticFile]:
    """Every file below ``folder``, by its path there."""
    found = sorted(path for path in folder.rglob("*") if path.suffix in TYPES)
    return {path.relative_to(folder).as_posix(): StaticFile.read(path) for path in found}


def file_routes(prefix: str, files: Mapping[str, StaticFile], names: Iterable[str]) -> Iterator[tuple[str, Handler]]:
    """Where each file stands whose path begins with one of ``names``, below ``prefix``."""
    for name, file in files.items():
        if name.startswith(tuple(names)):
            yield f"{prefix}{name}", file.show
