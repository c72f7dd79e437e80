"""Agents' programs as their owners start them: by any command, not only by ours."""

import sys
from collections.abc import Mapping
from pathlib import Path

from tests.support.workers import WorkerProcess


class Program(WorkerProcess):
    """A Python program that works for LiveKit's server, or watches, and whatever it starts."""

    def __init__(self, directory: Path, environment: Mapping[str, str], *command: str) -> None:
        """`command`: what Python gets, such as ``("my_agent.py", "start")``."""
        super().__init__(directory, environment)
        self._command = [sys.executable, *command]
