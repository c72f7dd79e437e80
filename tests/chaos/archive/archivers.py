"""The archiver processes of one history, each of them a real one."""

import os
import sys
from pathlib import Path

from conversation_actors import Settings
from tests.chaos.crew import Crew
from tests.support.ray_cluster import program_environment

ARCHIVERS = 2
COMMAND = (sys.executable, "-m", "tests.chaos.archive.archiver")


class Archivers(Crew):
    """Those that run now; who is killed is followed by another."""

    def __init__(self, directory: Path, settings: Settings) -> None:
        """Nothing runs before `start`."""
        url = settings.archive.url
        assert url is not None
        environment = program_environment(
            CONVERSATION_REDIS_URL=settings.require_redis_url(),
            CONVERSATION_ARCHIVE_URL=url.get_secret_value(),
            PYTHONPATH=os.environ["PYTHONPATH"],
        )
        super().__init__("archiver", COMMAND, directory, environment, count=ARCHIVERS, begun=b"archiving")
