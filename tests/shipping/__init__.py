"""Copying the ledger to where it outlives the store."""
