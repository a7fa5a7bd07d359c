"""The same for what shippers ask and report, node by node."""

from tests.metering.ledger.test_shipped import (  # noqa: F401
    books,
    shipped,
    test_a_destination_that_was_restored_may_be_further_back,
    test_an_expired_lease_is_reclaimed_so_that_its_entry_is_shipped,
    test_heads_come_in_pages_with_how_far_each_shipper_is,
    test_how_far_behind_a_shipper_is_can_be_scraped_and_is_told,
)
