"""Keys and teams: their records, limits and figures."""
