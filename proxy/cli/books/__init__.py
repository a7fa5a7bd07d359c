"""Commands about what was charged: ledger, its copies, statements, the journal, and who changed what."""
