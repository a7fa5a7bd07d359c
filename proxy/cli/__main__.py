"""``python -m proxy.cli``: the command line without its installed script."""

from proxy.cli import main

main()
