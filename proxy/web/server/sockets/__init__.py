"""Where a listener listens: addresses as they are configured, and the sockets that are bound to them."""
