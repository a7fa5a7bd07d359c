"""Settings of people who sign in."""
