"""The ids of requests, and what is Lightmeter's own share of the time."""

from __future__ import annotations

import re
from itertools import islice, pairwise

import pytest

from proxy.telemetry.observation import IDS_AT_ONCE, Observation, request_ids


def test_an_id_says_nothing_of_the_requests_between() -> None:
    ids = list(islice(request_ids(), 3 * IDS_AT_ONCE))
    assert all(re.fullmatch("req_[0-9a-f]{24}", each) for each in ids)
    assert len(set(ids)) == len(ids)
    digits = [int(each[4:], 16) for each in ids]
    gaps = [abs(after - before) for before, after in pairwise(digits)]
    # A counter has gaps of one; random ids have one of less than 2^64 once in 2^31.
    assert min(gaps) > 2**64
    assert not set(ids) & set(islice(request_ids(), 3 * IDS_AT_ONCE))


@pytest.mark.parametrize(("provider_s", "client_s", "own_s"), [(0.0, 0.0, 4.0), (1.0, 2.0, 1.0), (5.0, 0.0, 0.0)])
def test_waiting_for_the_others_is_not_our_own_time(provider_s: float, client_s: float, own_s: float) -> None:
    observation = Observation("req_1", "/", started=10.0, provider_s=provider_s, client_s=client_s)
    assert observation.own_s(14.0) == own_s
