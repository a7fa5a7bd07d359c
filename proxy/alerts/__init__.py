"""Alerts: what is noticed, who is told of it, and that they are told once over all gateways.

Requests only leave a mark in this process's memory: whose quota they changed, or who was refused. A task looks at what
was marked every few seconds, so the hot path has no round trip more, and nothing more in its scripts.
"""
