"""The page of a key's owner, on the public listener: files that ask the public API with the key that is typed there."""

from __future__ import annotations

from aiohttp import web

from proxy.web.console.console import CONSOLE
from proxy.web.console.static_files import FOLDER, file_routes, read_files

SHARED = ("console/base.css", "console/parts.css", "console/icon.svg", "console/html.js", "console/format.js")
PARTS = ("parts/chart.js", "parts/limits.js", "parts/prices.js", "owner/")


def add_key_page(app: web.Application) -> None:
    """Serve the page at ``/``, and those of the console's files that it is made of."""
    files = read_files(FOLDER)
    app.router.add_get("/", files["key.html"].show)
    for path, show in file_routes(CONSOLE, files, (*SHARED, *PARTS)):
        app.router.add_get(path, show)
