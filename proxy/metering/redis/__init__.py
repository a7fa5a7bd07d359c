"""How Redis is reached: connections, scripts, Sentinel, the embedded server, and what it may lose."""
