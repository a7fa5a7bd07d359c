"""The embedded store: a server of our own, found, started and bound to this process."""
