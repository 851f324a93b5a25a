"""The command line."""

from dolmen.cli.commands import main

__all__ = ["main"]
