"""How each kind of provider is played."""
