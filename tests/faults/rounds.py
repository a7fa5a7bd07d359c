"""Plays a schedule on real processes, and checks that the books are right when it is over."""

from __future__ import annotations

import asyncio
import re
import signal
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp

from tests.faults.scene import ADMIT, GENERATION, PRICE, RENEW, SETTLE, Scene
from tests.faults.schedule import GATEWAYS, KEYS, Fault, Order, Schedule
from tests.support.gateways import RunningGateway

QUOTAS = (None, None, 40 * PRICE, 7 * PRICE)
TEAMS = ("acme", "beta", "acme", "beta")
USERS = ("", "ann", "bob")
PER_USER = {"concurrent_requests": 6, "quota_units_per_month": 12 * PRICE, "users": {"bob": {}}}
CLIENT_TIMEOUT_S = 25.0
DOWN_S = 0.2
TOKEN = re.compile(r"order-(\d+)-end")
EXPECTED_STATUSES = {200, 400, 409, 429, 502, 503, 504, None}


@dataclass(frozen=True, slots=True)
class Result:
    """What a client got; ``status`` is None where it got no whole answer."""

    order: Order
    status: int | None = None
    images: int = 0
    request_id: str | None = None
    replayed: bool = False


class Round:
    """One schedule on a scene whose gateways go on from one round to the next."""

    def __init__(self, scene: Scene, gateways: list[RunningGateway], schedule: Schedule) -> None:
        """Make keys for it; ``gateways`` is changed where one is started again."""
        self._scene = scene
        self._gateways = gateways
        self._schedule = schedule
        self._store_lock = asyncio.Lock()
        self._locks = [asyncio.Lock() for _ in range(GATEWAYS)]
        limits: list[dict[str, Any]] = [{"limits_per_user": PER_USER}, {}, {"limits_per_user": PER_USER}, {}]
        self.keys = [gateways[0].make_key(QUOTAS[key], team=TEAMS[key], **limits[key]) for key in range(KEYS)]
        beta = {"limits": {"limits_per_user": {"quota_units_per_day": 15 * PRICE}}}
        assert gateways[0].admin("PATCH", "/admin/v1/teams/beta", body=beta).status == 200

    def play(self) -> list[Result]:
        """All requests and all faults; what the clients got. Afterwards nothing is broken any more."""
        self._scene.provider.clear()
        results = asyncio.run(self._play())
        self._scene.to_store.forget_rules()
        self._scene.to_provider.forget_rules()
        self._scene.to_store.come_back()
        self._scene.to_provider.come_back()
        return results

    async def _play(self) -> list[Result]:
        connector = aiohttp.TCPConnector(limit=0)
        timeout = aiohttp.ClientTimeout(total=CLIENT_TIMEOUT_S)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            async with asyncio.TaskGroup() as group:
                orders = [group.create_task(self._order(session, order)) for order in self._schedule.orders]
                for fault in self._schedule.faults:
                    group.create_task(self._fault(fault))
            return [result for order in orders for result in order.result()]

    # --- Clients ------------------------------------------------------------------------------------------------------

    async def _order(self, session: aiohttp.ClientSession, order: Order) -> list[Result]:
        await asyncio.sleep(order.at_s)
        return [await self._send(session, order) for _ in range(order.sends)]

    async def _send(self, session: aiohttp.ClientSession, order: Order) -> Result:
        headers = {"Authorization": f"Bearer {self.keys[order.key]}"}
        if order.sends > 1:
            headers["Idempotency-Key"] = f"{self._schedule.seed}-{order.number}"
        prompt = f"[sample {order.answer}] order-{order.number}-end"
        body = {"model": "acme/image-1", "prompt": prompt, "n": order.images, "response_format": "b64_json"}
        body["user"] = USERS[order.number % len(USERS)]
        url = f"{self._gateways[order.gateway].url}/v1/images/generations"
        try:
            async with (
                asyncio.timeout(order.leaves_after_s),
                session.post(url, json=body, headers=headers) as response,
            ):
                answer: dict[str, Any] = await response.json()
                return Result(
                    order,
                    response.status,
                    len(answer.get("data", ())),
                    response.headers["x-request-id"],
                    "Idempotency-Replayed" in response.headers,
                )
        except TimeoutError:
            if order.leaves_after_s is None:
                raise AssertionError(f"{order} had no answer within {CLIENT_TIMEOUT_S} seconds") from None
            return Result(order)
        except (aiohttp.ClientError, OSError):
            return Result(order)

    # --- Faults -------------------------------------------------------------------------------------------------------

    async def _fault(self, fault: Fault) -> None:
        await asyncio.sleep(fault.at_s)
        if fault.kind == "kill_store":
            await self._restart_store()
        elif fault.kind == "kill_both":
            await asyncio.gather(self._restart_store(), self._restart(fault.gateway, signal.SIGKILL))
        elif fault.kind.endswith("_gateway"):
            await self._harm_gateway(fault)
        elif fault.kind in ("store_pause", "scripts_flushed"):
            await asyncio.to_thread(self._command_store, fault)
        else:
            await self._harm_connections(fault)

    async def _harm_gateway(self, fault: Fault) -> None:
        if fault.kind == "freeze_gateway":
            async with self._locks[fault.gateway]:
                process = self._gateways[fault.gateway].server.process
                process.send_signal(signal.SIGSTOP)
                await asyncio.sleep(fault.lasts_s)
                process.send_signal(signal.SIGCONT)
        else:
            await self._restart(fault.gateway, signal.SIGKILL if fault.kind == "kill_gateway" else signal.SIGTERM)

    async def _restart(self, number: int, how: int) -> None:
        async with self._locks[number]:
            await asyncio.to_thread(self._gateways[number].server.stop, how)
            await asyncio.sleep(DOWN_S)
            self._gateways[number] = await asyncio.to_thread(
                self._scene.start_gateway, f"gateway-{number}", warm_up=False
            )

    async def _restart_store(self) -> None:
        async with self._store_lock:
            await asyncio.to_thread(self._scene.store.kill)
            await asyncio.sleep(DOWN_S)
            await asyncio.to_thread(self._scene.store.start)

    def _command_store(self, fault: Fault) -> None:
        # Where the store is being started again, there is nothing to harm.
        self._scene.store.try_command(
            *(
                ("SCRIPT", "FLUSH")
                if fault.kind == "scripts_flushed"
                else ("CLIENT", "PAUSE", int(fault.lasts_s * 1000))
            )
        )

    async def _harm_connections(self, fault: Fault) -> None:
        target, _, what = fault.kind.partition("_")
        scripts = {"admit": ADMIT, "settle": SETTLE, "renew": RENEW, "provider": GENERATION}
        proxy = self._scene.to_provider if target == "provider" else self._scene.to_store
        if what == "reply_lost":
            proxy.lose_reply(scripts[target])
            return
        begin: dict[str, Callable[[], object]] = {
            "reset": proxy.reset,
            "half_close": proxy.half_close,
            "stall": proxy.stall,
            "away": proxy.go_away,
            "slow": lambda: setattr(proxy, "delay_s", 0.05),
        }
        await asyncio.to_thread(begin[what])
        if what in ("stall", "away", "slow"):
            await asyncio.sleep(fault.lasts_s)
            await asyncio.to_thread(proxy.come_back)

    # --- What has to hold ---------------------------------------------------------------------------------------------

    def check(self, results: Sequence[Result]) -> str:
        """Everything that is promised; what happened, in one line. Raises AssertionError."""
        for gateway in self._gateways:
            self._scene.come_to_rest(gateway)
        gateway = self._gateways[0]
        found = self._scene.check(gateway, *self.keys)
        entries = [entry for key in self.keys for entry in gateway.ledger(key)]
        generations = self._generations()
        for number, count in generations.items():
            order = self._schedule.orders[number]
            assert count == 1 or self._may_run_again(order), f"{order} was generated {count} times"
        assert {entry["per_user"] for entry in entries if entry["kind"] != "grant"} == {"key", "team"}
        requests = sum(entry["kind"] == "request" for entry in entries)
        assert requests >= sum(generations.values()), "a request was forwarded that has no entry"
        for result in results:
            self._check_answer(result, [entry for entry in entries if entry["request"] == result.request_id])
        for log in self._scene.folder.glob("gateway-*/gateway.log"):
            assert '"traceback"' not in log.read_text(), log.read_text()
        statuses = Counter(str(result.status or "none") for result in results)
        told = ", ".join(f"{count} x {status}" for status, count in sorted(statuses.items()))
        kinds = Counter(entry["outcome"] for entry in entries)
        return f"{told}; {dict(sorted(kinds.items()))}; {found.entries} entries in all"

    def _generations(self) -> Counter[int]:
        prompts = (str(request["body"]) for request in self._scene.provider.requests())
        return Counter(int(match[1]) for prompt in prompts if (match := TOKEN.search(prompt)))

    def _may_run_again(self, order: Order) -> bool:
        # A provider's own error says that it has generated nothing.
        return order.sends > 1 and order.answer.startswith("status=")

    def _check_answer(self, result: Result, entries: list[dict[str, Any]]) -> None:
        assert result.status in EXPECTED_STATUSES, result
        charged = sum(entry["charged"] for entry in entries)
        if result.status == 200 and not result.replayed:
            ends = [entry for entry in entries if entry["outcome"] != "expired"]
            assert [(entry["images"], entry["charged"]) for entry in ends] == [
                (result.images, result.images * PRICE)
            ], f"{result} and {entries}"
        elif result.status in (400, 409, 429, 503):
            assert charged == 0, f"{result} and {entries}"
