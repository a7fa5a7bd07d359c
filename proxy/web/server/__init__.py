"""The listeners: how they open, close and describe themselves, and their health."""
