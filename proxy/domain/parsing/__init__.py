"""Formats, with no knowledge of the product: JSON, server-sent events, headers of image files."""
