"""Whether a budget holds when many ask at once, and whether it holds for those that come after them."""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus

from tests.benchmarks.peers.figures import Budget
from tests.benchmarks.peers.load import call
from tests.benchmarks.peers.starting import BUDGET_IMAGES, Account, Peer

ASKED = 40
SLOW_MS = 1_000
"""How long the provider takes: all have been admitted or refused by then."""
SETTLED_S = 2.0
"""How long the settlements may take that a peer makes after it has answered."""


def try_budget(peer: Peer, account: Account) -> Budget:
    """40 images asked for at once with a budget for 10, and then as many again. Raises OSError where nobody answers."""
    prompt = f"[sample delay_ms={SLOW_MS}] a blue cube"
    body = json.dumps({"model": account.model, "prompt": prompt, "n": 1, "size": "1024x1024"}).encode()
    first = _ask(peer, account, body)
    time.sleep(SETTLED_S)
    return Budget(BUDGET_IMAGES, ASKED, first, _ask(peer, account, body))


def _ask(peer: Peer, account: Account, body: bytes) -> int:
    """How many of those that ask at the same moment get an image."""
    together = threading.Barrier(ASKED)

    def ask() -> bool:
        together.wait(timeout=60)
        status, _ = call(peer, account.headers, body)
        return status == HTTPStatus.OK

    with ThreadPoolExecutor(ASKED) as threads:
        asking = [threads.submit(ask) for _ in range(ASKED)]
        return sum(each.result() for each in asking)
