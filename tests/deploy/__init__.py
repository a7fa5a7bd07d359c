"""What stands in deploy/, tried out on a real Prometheus that scrapes a real gateway."""
