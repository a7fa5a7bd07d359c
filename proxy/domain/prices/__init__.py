"""What a model costs by prices of its own, worked out at start."""
