"""Admission and settlement on Redis: the scripts, their keys, and how their replies are read."""
