"""The start of the process that runs the demo, from the command's options and without the user's settings."""

import json
import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

from conversation_actors.cli.processes import with_environment
from conversation_actors.cli.ray_head import ENVIRONMENT
from conversation_actors.errors import InvalidInputError
from conversation_actors.settings import all_names
from conversation_actors.values import check_id

_ARCHIVE = ("sqlalchemy", "alembic", "aiosqlite")
"""The modules that keep the demo's archive."""
_NEEDED = ("agent_worker", "livekit.agents", "livekit.plugins.openai", "livekit.plugins.deepgram", "aiohttp")
"""The modules that hold the demo's call, and answer it."""


def start(*, transcript: Path | None, conversation: str, pause: float, as_json: bool) -> NoReturn:
    """Become the process that runs the demo (`conversation_actors.cli.demo.__main__`)."""
    check_id(conversation, "conversation")
    _require_agent()
    options = {
        "transcript": str(transcript or default_transcript()),
        "conversation": conversation,
        "pause": pause,
        "as_json": as_json,
    }
    command = [sys.executable, "-m", "conversation_actors.cli.demo", json.dumps(options)]
    sys.stdout.flush()
    os.execvp("env", with_environment(command, changes=environment()))  # noqa: S606, S607  # no shell is wanted


def environment() -> dict[str, str | None]:
    """Return the changes to the environment for the demo: no setting of the user's reaches it."""
    unset: dict[str, str | None] = dict.fromkeys(["OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_MODEL"])
    unset |= dict.fromkeys(sorted(all_names()))
    # LiveKit would load a turn detector of 400 MB, which a call in text does not need
    return {**unset, **ENVIRONMENT, "LIVEKIT_AGENTS_PRELOAD_LOCAL_INFERENCE": "0"}


def _require_agent() -> None:
    """Raise `InvalidInputError` if the process that holds the call could not start."""
    # a name with a dot can be looked for only if the one before the dot is there
    if find_spec("livekit") is None or any(find_spec(name) is None for name in _NEEDED):
        message = "the demo needs LiveKit's agents: pip install 'conversation-actors[agent,embedded,archive]'"
        raise InvalidInputError(message, field="agent_worker")
    if any(find_spec(name) is None for name in _ARCHIVE):
        message = "the demo needs an archive: pip install 'conversation-actors[agent,embedded,archive]'"
        raise InvalidInputError(message, field="archive")


def default_transcript() -> Path:
    """Return the path of the call that comes with the package, or lies in the checkout.

    Raises `InvalidInputError` if there is none, or if the process that holds the call could not start.
    """
    _require_agent()
    found = find_spec("agent_worker")
    assert found is not None
    assert found.origin is not None
    package = Path(found.origin).parent
    for path in (package / "data" / "transcript.json", package.parent / "tests" / "data" / "transcript.json"):
        if path.is_file():
            return path
    message = f"no transcript beside {package}; name one with --transcript"
    raise InvalidInputError(message, field="transcript")
