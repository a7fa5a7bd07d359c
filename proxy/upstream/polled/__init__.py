"""Providers that accept a task and have to be asked how it is doing: submitted, polled to its end, and fetched."""
