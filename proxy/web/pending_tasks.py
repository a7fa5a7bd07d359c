"""Requests whose process ended while a provider was at work on them: followed to their end, and settled by it.

Their clients are gone, so the images are nobody's; they were made, and are charged as those of a client that has left.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace

from proxy.domain.billing.pending import PendingTask
from proxy.domain.billing.settlement import Delivery, Outcome, Reservation, Served, Settlement, settle
from proxy.domain.errors import ProviderRefusal, ProxyError
from proxy.metering.journal.tasks import PendingRequest
from proxy.metering.meter import Meter
from proxy.upstream.pool import Pool

logger = logging.getLogger(__name__)

LOOK_S = 5.0
"""Between two looks for what another process of the same folder has left."""

AT_ONCE = 100
ACCEPTED = 200


class PendingTasks:
    """What follows them, for as long as this process lives; what it does not come to is left to the next one."""

    def __init__(self, meter: Meter, pool: Pool, *, cancels: bool, charges_lost: bool) -> None:
        """Tasks that are still at work are cancelled first where it ``cancels``.

        What nobody can say the end of is charged as a whole where it ``charges_lost``, else nothing.
        """
        self._meter = meter
        self._pool = pool
        self._cancels = cancels
        self._charges_lost = charges_lost
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._looking: asyncio.Task[None] | None = None
        self._finishing: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Begin with what is there, before any lease of it is given up."""
        await self._look()
        self._looking = asyncio.create_task(self._keep_looking())

    async def stop(self) -> None:
        """Leave the rest as it is."""
        tasks = [*self._finishing, *(() if self._looking is None else (self._looking,))]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _keep_looking(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                await self._look()
            except Exception:
                logger.exception("pending tasks could not be looked for, and will be again in %g s", LOOK_S)

    async def _look(self) -> None:
        journal = self._meter.tasks
        for request in [] if journal is None else await journal.adopt():
            self._meter.adopt(request.reservation)
            task = asyncio.create_task(self._finish(request))
            self._finishing.add(task)
            task.add_done_callback(self._finishing.discard)

    async def _finish(self, request: PendingRequest) -> None:
        async with self._turns:
            ends = await asyncio.gather(*map(self._follow, request.tasks))
        settlement = settle_pending(request, ends, charges_lost=self._charges_lost)
        logger.info(
            "%s: its tasks have ended after its process: %s, %d images",
            *(request.reservation.id, settlement.delivery.outcome.value, settlement.delivery.images),
        )
        await self._meter.post(settlement)
        if self._meter.tasks is not None:
            self._meter.tasks.settled(request.reservation.id)

    async def _follow(self, task: PendingTask) -> int | Exception:
        try:
            return await self._pool.follow(task, cancel=self._cancels)
        except ProxyError as error:
            return error
        except Exception as error:
            logger.exception("a task of provider %s could not be followed", task.provider)
            return error


def settle_pending(request: PendingRequest, ends: list[int | Exception], *, charges_lost: bool) -> Settlement:
    """The settlement of a request by the ends of its tasks: so many images each, or an error."""
    reservation = request.reservation
    images = sum(end for end in ends if isinstance(end, int))
    errors = [end for end in ends if isinstance(end, Exception)]
    served = Served(request.tasks[0].provider, ACCEPTED, request.settlement.delivery.served.attempts)
    delivery = Delivery(served=served, images=images)
    if images or not errors:
        delivery.end(complete=True, client_gone=True)
        return replace(settle(reservation, delivery), charged_units=reservation.quote.units_for(images))
    told = [error for error in errors if _is_told(error)]
    if len(told) == len(errors):
        delivery.end_by(told[0])
        return settle(reservation, delivery, told[0])
    return _settle_lost(reservation, delivery, errors[0], charges_lost=charges_lost)


def _settle_lost(reservation: Reservation, delivery: Delivery, error: Exception, *, charges_lost: bool) -> Settlement:
    """Nobody can say whether images were made."""
    delivery.end_by(error)
    settlement = settle(reservation, delivery, error)
    if not charges_lost:
        return settlement
    delivery.outcome = Outcome.EXPIRED
    return Settlement(reservation, delivery, reservation.quote.units, ending=settlement.ending)


def _is_told(error: Exception) -> bool:
    """Whether it is the provider's own word for how the task has ended."""
    return isinstance(error, ProviderRefusal) or (isinstance(error, ProxyError) and error.reported_status > 0)
