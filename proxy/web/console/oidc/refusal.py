"""Why somebody is not signed in, and the page that says so."""

from __future__ import annotations

from html import escape
from http import HTTPStatus

from aiohttp import web

from proxy.web.console.static_files import HEADERS

SHOWN_CHARACTERS_LIMIT = 200

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Not signed in · Lightmeter</title>
<link rel="icon" href="/console/console/icon.svg" type="image/svg+xml">
<link rel="stylesheet" href="/console/console/base.css">
<link rel="stylesheet" href="/console/console/parts.css">
</head>
<body>
<main class="alone"><div class="sign-in card">
<h1>Not signed in</h1>
<p role="alert">{text}</p>
<p><a class="button" href="/console/">To the sign-in page</a></p>
</div></main>
</body>
</html>
"""


class SignInRefused(Exception):
    """Nobody is signed in; the message is for whoever tried, and for the log."""

    status = HTTPStatus.BAD_GATEWAY


class WrongReturn(SignInRefused):
    """A browser came back that was not sent, or was sent too long ago."""

    status = HTTPStatus.BAD_REQUEST


class CodeRefused(SignInRefused):
    """The provider does not take the code: it may be a guess."""


class NotAllowed(SignInRefused):
    """The provider knows who it is, and that person may do nothing here."""

    status = HTTPStatus.FORBIDDEN


class TooMany(SignInRefused):
    """More people sign in at one moment than the provider is asked for."""

    status = HTTPStatus.SERVICE_UNAVAILABLE


def refusal_page(status: int, text: str) -> web.Response:
    """What a browser shows."""
    return web.Response(
        status=status,
        text=_PAGE.format(text=escape(text)),
        content_type="text/html",
        charset="utf-8",
        headers={**HEADERS, "Cache-Control": "no-store"},
    )


def shown(text: object) -> str:
    """What somebody else wrote, so that it can stand in a line of a log and on a page."""
    clean = "".join(each if each.isprintable() else "?" for each in str(text)[: SHOWN_CHARACTERS_LIMIT + 1])
    return clean if len(clean) <= SHOWN_CHARACTERS_LIMIT else f"{clean[:SHOWN_CHARACTERS_LIMIT]}…"
