"""By what a provider lets this gateway in: keys that stay, files that change, and tokens that end."""
