"""What Ray tells a client unasked: a line in our log, where Ray prints paragraphs in colour on standard output.

Standard output is the program's own. Ray has no setting for these messages: a thread of its own prints them in each
process that has joined a cluster, whatever ``log_to_driver`` says.
"""

import logging
import re
from collections.abc import Callable, Mapping
from typing import Any

from ray._private import worker

logger = logging.getLogger(__name__)

_PRINT = "print_to_stdstream"
_RAYLET = "raylet"
"""Whose messages Ray says these are. What its workers print comes the same way, with their process ids."""
_EXPECTED = "worker processes have been started on node"
"""Each owner has a process of its own."""
_DEATH = re.compile(r"Node ID: (?P<node>\w+).*?Worker PID: (?P<pid>\d+).*?Worker exit type: (?P<kind>\w+)", re.DOTALL)
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_LONGEST = 400
"""Characters of a message that nobody here knows."""


def tell_by_log() -> None:
    """Have this process log what Ray tells it from now on; a Ray that prints in another way goes on doing so."""
    printing = getattr(worker, _PRINT, None)
    if printing is not None and not isinstance(printing, _Teller):
        setattr(worker, _PRINT, _Teller(printing))


class _Teller:
    """In the place of Ray's function that prints."""

    def __init__(self, otherwise: Callable[..., object]) -> None:
        """Hand on to `otherwise` what is no message of Ray's."""
        self._otherwise = otherwise

    def __call__(self, data: Mapping[str, Any], *args: Any, **options: Any) -> None:
        """Take what was to be printed."""
        if data.get("pid") != _RAYLET:
            self._otherwise(data, *args, **options)
            return
        for message in data.get("lines", ()):
            _tell(_COLOUR.sub("", message))


def _tell(message: str) -> None:
    if _EXPECTED in message:
        logger.debug("Ray runs many worker processes: one for each owner")
    elif death := _DEATH.search(message):
        told = "process %s of the cluster has died (%s); if it was an owner, Ray starts the next one"
        logger.warning(told, death["pid"], death["kind"], extra={"node_id": death["node"]})
    else:
        text = " ".join(message.split())
        logger.warning("Ray tells: %s", text if len(text) <= _LONGEST else text[:_LONGEST] + " …")
