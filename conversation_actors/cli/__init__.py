"""The command line: ``conversation-actors --help``."""

from conversation_actors.cli.app import main

__all__ = ["main"]
