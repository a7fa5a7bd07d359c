"""Bodies on their way to a provider, with files in them that are not held in memory."""
