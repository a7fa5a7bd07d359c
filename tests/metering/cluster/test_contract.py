"""What holds for a store on one server holds on a Cluster: the same tests, each on a real one."""

from __future__ import annotations

from tests.metering import test_idempotent_requests, test_leases, test_user_limits
from tests.metering.accounts import test_registry
from tests.metering.ledger import test_books
from tests.metering.redis_store import test_store, test_usage_folding

CONTRACT = (
    test_registry,
    test_books,
    test_store,
    test_usage_folding,
    test_idempotent_requests,
    test_leases,
    test_user_limits,
)
OF_ONE_SERVER = (
    # They count what one server was asked for, or take its one connection away.
    "test_leases_are_renewed_in_one_call_for_all_of_a_team",
    "test_very_many_leases_that_run_out_at_once_hold_the_store_up_for_no_call",
    "test_when_the_store_is_back_leases_are_renewed_before_anybody_is_admitted",
    # They know a server by its address alone.
    "test_a_runner_without_a_listener_connects",
    "test_every_interleaving_keeps_to_the_limit",
    "test_the_store_s_calendar",
    # Their clock is a key in another slot.
    "test_verify_holds_while_days_and_months_turn",
    "test_a_clock_that_was_days_ahead_leaves_no_user_holding_anything",
)
books = test_books.books

for module in CONTRACT:
    tests = {name: test for name, test in vars(module).items() if name.startswith("test_")}
    globals().update({name: test for name, test in tests.items() if name not in OF_ONE_SERVER})
