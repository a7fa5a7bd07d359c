"""What operators see: metrics, logs, and the observation that both are written from."""
