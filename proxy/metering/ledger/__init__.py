"""The books: pages of the ledger, what it adds up to, how long it is kept, and the audit log."""
