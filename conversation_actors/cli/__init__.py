"""The command line: ``conversation-actors dev``, ``show`` and ``demo``."""

from conversation_actors.cli.app import main

__all__ = ["main"]
