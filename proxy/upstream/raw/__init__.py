"""Providers whose answer is an image's bytes, and no document."""
