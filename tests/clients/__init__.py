"""Clients that nobody here wrote, each against a real gateway."""
