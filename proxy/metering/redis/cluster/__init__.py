"""A store of several primaries, each of which has the teams of some slots; see ``runner`` and ``reads``."""
