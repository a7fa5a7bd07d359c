"""What a request costs, what is charged, and what the ledger adds up to."""
