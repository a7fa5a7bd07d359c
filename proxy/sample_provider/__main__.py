"""``python -m proxy.sample_provider``."""

from proxy.sample_provider.command import sample_provider

if __name__ == "__main__":
    sample_provider()
