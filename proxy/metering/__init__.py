"""Quota: admit a request before it is forwarded, settle it when it has ended, and keep the books of both."""
