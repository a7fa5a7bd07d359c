"""Real servers for the tests: each started by a fixture on a free port or socket, and stopped by its own process."""
