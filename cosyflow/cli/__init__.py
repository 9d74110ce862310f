"""The command line. `main` parses; each other module is one sub-command."""

from cosyflow.cli.main import main

__all__ = ["main"]
