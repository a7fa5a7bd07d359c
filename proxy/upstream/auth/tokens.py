"""Tokens that end: fetched ahead of their end, one fetch at a time, the old one used for as long as it is good."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from time import time

from typing_extensions import override

from proxy.domain.errors import NoCredentials
from proxy.telemetry.secrets import KNOWN_SECRETS
from proxy.upstream.auth.auth import ChangingCredentials, Credentials, Token, TokenSource

logger = logging.getLogger(__name__)

AHEAD_MOST_S, AHEAD_SHARE = 300.0, 0.25
"""A token is fetched so long before its end, or in the last fourth of its life, whichever is later."""

GOOD_SHARE = 0.05
"""In so much of its life, its last, a token may end on its way to the provider: it is not sent any more."""

PAUSE_LEAST_S, PAUSE_MOST_S = 0.5, 30.0
"""Between two fetches, the longer the more of them have failed."""

WAIT_S = 15.0
"""How long a request waits for a token where there is none."""

REASON_LENGTH_LIMIT = 300


class Tokens(ChangingCredentials):
    """The credentials of one provider. A task of its own fetches them, so that no two fetches run at once."""

    def __init__(self, provider: str, source: TokenSource) -> None:
        """Fetch from now on; needs a running event loop."""
        self._provider = provider
        self._source = source
        self._credentials: Credentials | None = None
        self._good_until_s = 0.0
        self._fetched = asyncio.Event()
        self._ended = asyncio.Event()
        self._failures = 0
        self._task = asyncio.create_task(self._keep())

    @override
    async def current(self) -> Credentials:
        if self._credentials is None or time() >= self._good_until_s:
            if self._fetched.is_set() and not self._failures:
                # The machine has slept, or its clock was set: what waits for the right time would wait for long.
                self._fetched.clear()
                self._ended.set()
            with suppress(TimeoutError):
                async with asyncio.timeout(WAIT_S):
                    await self._fetched.wait()
            if self._credentials is None or time() >= self._good_until_s:
                raise NoCredentials
        return self._credentials

    @override
    async def close(self) -> None:
        """Fetch no more. A fetch that is under way ends for nobody."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _keep(self) -> None:
        while True:
            self._fetched.clear()
            self._ended.clear()
            try:
                token = await _in_a_thread(self._source.fetch)
                pause_s = self._take(token)
            except Exception as error:
                pause_s = self._failed(error)
            # Whoever waits is told, whether there is a token or none.
            self._fetched.set()
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._ended.wait()

    def _take(self, token: Token) -> float:
        life_s = token.expires_s - time()
        if life_s <= 0:
            raise ValueError("the token that came has ended already: look at this machine's clock")
        for number, secret in enumerate((token.text, *token.secrets)):
            KNOWN_SECRETS.add_changing(f"token {number} of {self._provider}", secret)
        bearer = {} if token.signer is not None else {"Authorization": f"Bearer {token.text}"}
        self._credentials = Credentials(bearer, signer=token.signer)
        self._good_until_s = token.expires_s - life_s * GOOD_SHARE
        if self._failures:
            logger.info("provider %s: there is a token again", self._provider)
        self._failures = 0
        ahead_s = min(AHEAD_MOST_S, life_s * AHEAD_SHARE)
        return max(PAUSE_LEAST_S, min(token.again_s, life_s - ahead_s))

    def _failed(self, error: Exception) -> float:
        self._failures += 1
        left_s = self._good_until_s - time()
        after = (
            f"the one before is good for {left_s:.0f} seconds more"
            if left_s > 0
            else "requests there are answered with a 502 until there is one"
        )
        reason = " ".join(str(error).split())[:REASON_LENGTH_LIMIT] or type(error).__name__
        logger.error(
            "provider %s: no token can be had (%s); %s. %s", self._provider, reason, after, self._source.advice
        )
        pause_s: float = min(PAUSE_MOST_S, PAUSE_LEAST_S * 2.0 ** min(self._failures, 10))
        return pause_s


async def _in_a_thread(fetch: Callable[[], Token]) -> Token:
    """What ``fetch`` returns or raises. The thread is no reason for a process to stay that is asked to stop."""
    loop = asyncio.get_running_loop()
    result: asyncio.Future[Token] = loop.create_future()

    def tell(token: Token | None, error: BaseException | None) -> None:
        if result.done():
            return
        if token is None:
            result.set_exception(error or RuntimeError("a fetch returned nothing"))
        else:
            result.set_result(token)

    def run() -> None:
        token, error = None, None
        try:
            token = fetch()
        except Exception as raised:
            error = raised
        with suppress(RuntimeError):
            # The loop may have ended meanwhile.
            loop.call_soon_threadsafe(tell, token, error)

    threading.Thread(target=run, name="token", daemon=True).start()
    return await result
