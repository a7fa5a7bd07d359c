"""The task that notices what there is to tell, and sees to it that it is told once over all gateways.

An alert is claimed in the store before it is sent (SET NX, in its team's slot): who does not get the claim leaves it to
whoever has it. A claim is short; it becomes long when the alert was taken. Where it was not, or its gateway died, the
claim ends, and the alert is sent by whoever notices it next, with the same id, by which a receiver tells it from a new
one.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from hashlib import sha256
from math import inf
from time import time

from proxy.alerts.marks import Marks
from proxy.alerts.rules import Rule, SendingError
from proxy.domain.alerts import KEY_EXPIRY, Alert, credit_alert, expiry_alert
from proxy.domain.api_key import team_of
from proxy.domain.errors import StoreUnavailable
from proxy.domain.limits import Account
from proxy.metering.accounts.once import Once
from proxy.metering.accounts.registry import KeyRegistry, TeamRegistry
from proxy.metering.redis.pool import StorePool, ask, place_of, reads_of
from proxy.metering.redis_store import keys as key_names
from proxy.metering.redis_store.facts import utc_day
from proxy.metering.tasks import end_task

logger = logging.getLogger(__name__)

PAUSE_S = 2.0
WALK_S = 3600
"""All keys are looked at so often for those about to expire, by one of the gateways."""

KEYS_A_PAGE = 500
ACCOUNTS_A_TURN = 50
"""Of the event loop: some tenths of a millisecond."""

CLAIM_S = 600
"""Longer than all tries of one alert take."""

WAITS_S = (1.0, 5.0, 30.0, 120.0)
"""Between the tries."""

SENDING_AT_ONCE = 20
"""To one receiver: another one that does not answer holds it up by nothing."""

WAITING_LIMIT = 10_000
"""Alerts of one receiver in memory. What is beyond is noticed again at the next request of its key."""

KNOWN_LIMIT = 100_000
LAST_S = 3.0
"""How long what is being sent may take at the end."""


class Alerts:
    """Notices and tells, for as long as the process lives."""

    def __init__(
        self,
        rules: Sequence[Rule],
        marks: Marks,
        keys: KeyRegistry,
        teams: TeamRegistry,
        pool: StorePool,
        refused_accounts: Callable[[], Mapping[str, float]],
    ) -> None:
        """``refused_accounts`` counts by provider how often it refused the gateway's account."""
        self._rules = rules
        self._marks = marks
        self._keys = keys
        self._teams = teams
        self._redis = reads_of(pool)
        self._once = Once(pool)
        self._refused_accounts = refused_accounts
        self._seen_refusals = dict(refused_accounts())
        self._places = {rule.name: asyncio.Semaphore(SENDING_AT_ONCE) for rule in rules}
        self._waiting: Counter[str] = Counter()
        self._sending: set[asyncio.Task[None]] = set()
        self._known_until_s: dict[str, float] = {}
        self._walked_s = 0.0
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin."""
        self._task = asyncio.create_task(self._keep_looking())

    async def stop(self) -> None:
        """Look once more at what was marked, give what is being sent a moment, and end."""
        if self._task is not None:
            await end_task(self._task)
        try:
            async with asyncio.timeout(LAST_S):
                await self._look_at_marks()
                await asyncio.gather(*self._sending)
        except (TimeoutError, StoreUnavailable):
            logger.warning("%d alerts were not sent before the end; another gateway may send them", len(self._sending))
        for task in [*self._sending]:
            await end_task(task)
        for rule in self._rules:
            await rule.sender.close()

    async def _keep_looking(self) -> None:
        while True:
            for look in (self._look_at_marks, self._look_at_providers, self._look_at_keys):
                try:
                    await look()
                except StoreUnavailable:
                    logger.debug("alerts wait for the store")
                except Exception:
                    logger.exception("an alert could not be looked for")
            await asyncio.sleep(PAUSE_S)

    async def _look_at_marks(self) -> None:
        by_place: dict[object, dict[str, bool]] = defaultdict(dict)
        for key_id, refused in self._marks.take().items():
            record = key_names.team_record(team_of(key_id) or "")
            by_place[place_of(self._redis, record)][key_id] = refused
        # A node of a Cluster that is away holds up nobody's alerts but those of its own teams.
        for error in await asyncio.gather(*map(self._look_at, by_place.values()), return_exceptions=True):
            if error is not None:
                raise error

    async def _look_at(self, marked: Mapping[str, bool]) -> None:
        try:
            await self._tell_of_accounts(marked)
        except BaseException:
            for key_id, refused in marked.items():
                (self._marks.refused if refused else self._marks.charged)(key_id)
            raise

    async def _tell_of_accounts(self, marked: Mapping[str, bool]) -> None:
        keys = await self._keys.read_many(sorted(marked))
        teams = await self._teams.read_many(sorted({team_of(key_id) or "" for key_id in marked}))
        by_team = {team.id: team for team in teams}
        refusing = set()
        for key in keys:
            if marked[key.id]:
                # Whoever has less left is whose quota it was.
                refusing.add(min((key, by_team.get(key.team, key)), key=_least_left).id)
        accounts: list[Account] = [*keys, *teams]
        for number, account in enumerate(accounts, 1):
            for rule in self._rules:
                self._tell_all(rule, rule.of_account(account, refused=account.id in refusing))
            if number % ACCOUNTS_A_TURN == 0:
                # Requests have their turn.
                await asyncio.sleep(0)

    async def _look_at_providers(self) -> None:
        seen, self._seen_refusals = self._seen_refusals, dict(self._refused_accounts())
        day = utc_day(int(time() * 1_000))
        for provider, count in self._seen_refusals.items():
            if count > seen.get(provider, 0):
                for rule in self._rules:
                    self._tell_all(rule, [credit_alert(provider, day)])

    async def _look_at_keys(self) -> None:
        wanting = [rule for rule in self._rules if KEY_EXPIRY in rule.kinds]
        now_s = time()
        if not wanting or now_s < self._walked_s + WALK_S:
            return
        self._walked_s = now_s
        if not await self._once.take(f"alerts/walk/{int(now_s // WALK_S)}", for_s=WALK_S):
            return
        cursor = None
        while True:
            page = await self._keys.page(None, cursor=cursor, limit=KEYS_A_PAGE)
            for rule in wanting:
                found = (expiry_alert(key, now_ms=int(now_s * 1_000), days=rule.expiry_days) for key in page.items)
                self._tell_all(rule, [alert for alert in found if alert is not None])
            cursor = page.next_cursor
            if cursor is None:
                return

    # --- Telling ------------------------------------------------------------------------------------------------------

    def _tell_all(self, rule: Rule, alerts: Iterable[Alert]) -> None:
        for alert in alerts:
            claim = key_names.alert(alert.team, rule.name, alert.name)
            if rule.wants(alert) and self._known_until_s.get(claim, 0.0) <= time():
                if self._waiting[rule.name] >= WAITING_LIMIT:
                    return
                self._waiting[rule.name] += 1
                if self._waiting[rule.name] == WAITING_LIMIT:
                    logger.warning(
                        "%d alerts wait for %s; others are left until it takes some", WAITING_LIMIT, rule.name
                    )
                self._remember(claim, CLAIM_S)
                task = asyncio.create_task(self._tell(rule, alert, claim))
                self._sending.add(task)
                task.add_done_callback(partial(self._end, rule))

    def _end(self, rule: Rule, task: asyncio.Task[None]) -> None:
        self._waiting[rule.name] -= 1
        self._sending.discard(task)

    async def _tell(self, rule: Rule, alert: Alert, claim: str) -> None:
        try:
            async with self._places[rule.name]:
                if await ask(self._redis, "SET", claim, "sending", "NX", "EX", CLAIM_S) is None:
                    return
                if await self._send(rule, alert):
                    for name in (alert.name, *alert.below):
                        told = key_names.alert(alert.team, rule.name, name)
                        await ask(self._redis, "SET", told, "sent", "EX", alert.remember_s)
                        self._remember(told, alert.remember_s)
                    return
        except StoreUnavailable:
            logger.warning("alert %s to %s waits for the store", alert.name, rule.name)
        # The claim has ended by then; another gateway may have been quicker.
        asyncio.get_running_loop().call_later(CLAIM_S + 1, self._tell_all, rule, [alert])

    async def _send(self, rule: Rule, alert: Alert) -> bool:
        alert_id = f"alert_{sha256(f'{rule.name}/{alert.name}'.encode()).hexdigest()[:32]}"
        for wait_s in (*WAITS_S, None):
            try:
                await rule.sender.send(alert, alert_id)
            except SendingError as error:
                logger.warning("alert %s to %s: %s", alert.name, rule.name, error)
            else:
                logger.info("alert %s was sent to %s", alert.name, rule.name)
                return True
            if wait_s is not None:
                await asyncio.sleep(wait_s)
        logger.error("alert %s could not be sent to %s; it is tried again in ten minutes", alert.name, rule.name)
        return False

    def _remember(self, claim: str, for_s: float) -> None:
        """Not to ask the store again for what is known of it."""
        if len(self._known_until_s) >= KNOWN_LIMIT:
            self._known_until_s.clear()
        self._known_until_s[claim] = time() + for_s


def _least_left(account: Account) -> float:
    """Of the account's tightest quota, in units."""
    left = (quota.remaining for quota in account.quotas.values())
    return min((units for units in left if units is not None), default=inf)
