"""The first image of a gateway that was started to be looked at: a picture, and what it cost, for the overview."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from proxy.domain.errors import InvalidApiKey, NotFound
from proxy.web.admin.roles import Administrator, Role
from proxy.web.console.sessions import Sessions

PICTURE = "/console/demo/picture"


@dataclass(frozen=True, slots=True)
class FirstImage:
    """An image as it was delivered; ``facts`` has ``model``, ``key``, ``team``, ``quota_units`` and ``entry``."""

    content: bytes
    media_type: str
    facts: Mapping[str, Any]


class FirstImageView:
    """Shows one to who is signed in. No gateway has any but that of ``lightmeter demo``: images are not kept."""

    shown: FirstImage | None = None

    def __init__(self, sessions: Sessions) -> None:
        """``sessions`` say who is signed in."""
        self._sessions = sessions

    def about(self, who: Administrator) -> dict[str, Any] | None:
        """What the console's page needs to show it, None where ``who`` sees nothing of its team."""
        if self.shown is None or (who.role is Role.TEAM_ADMIN and self.shown.facts["team"] not in who.teams):
            return None
        return {**self.shown.facts, "picture": PICTURE}

    async def show(self, request: web.Request) -> web.Response:
        """The picture. Raises InvalidApiKey where nobody is signed in, NotFound where there is none for them."""
        who = await self._sessions.of(request)
        if who is None:
            raise InvalidApiKey("Nobody is signed in.")
        if self.shown is None or self.about(who) is None:
            raise NotFound("This gateway has no picture to show.")
        headers = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
        return web.Response(body=self.shown.content, content_type=self.shown.media_type, headers=headers)
