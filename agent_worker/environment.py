"""What a worker's processes tell each other by environment variables: names, files, and where the models are."""

import os
from collections.abc import Mapping

INSTANCE_VARIABLE = "AGENT_WORKER_INSTANCE"
"""Names one run of a worker; its supervisor sets it, and finds by it what a dead worker has left."""
REGISTRATION_VARIABLE = "AGENT_WORKER_REGISTRATION"
"""Names the file in which a worker tells that LiveKit's server has it; whoever starts the worker sets it."""


def registration_from_environment() -> str | None:
    """The file in which this worker tells that it is registered; None where nobody wants to know."""
    return os.environ.get(REGISTRATION_VARIABLE) or None


def registration_variables(file: str) -> dict[str, str]:
    """What makes a worker tell in this file that it is registered."""
    return {REGISTRATION_VARIABLE: file}


def instance_from_environment() -> str | None:
    """The name that the supervisor gave this worker; None where it has no supervisor."""
    return os.environ.get(INSTANCE_VARIABLE) or None


def child_environment(instance: str, added: Mapping[str, str]) -> dict[str, str]:
    """The environment of a worker that is to have this name: this process's, and what is added."""
    return {**os.environ, **added, INSTANCE_VARIABLE: instance}


def override(variables: Mapping[str, str]) -> None:
    """Put what a command line gives before the environment, for this process and for all that it starts."""
    os.environ.update(variables)


def offline_environment(base_url: str, deepgram_url: str) -> dict[str, str]:
    """What points every model of a worker at the offline server; keys of accounts are not sent there."""
    return {
        "OPENAI_BASE_URL": base_url,
        "OPENAI_API_KEY": "offline",
        "OPENAI_TTS_MODEL": "tts-1",
        "DEEPGRAM_BASE_URL": deepgram_url,
        "DEEPGRAM_API_KEY": "offline",
        # LiveKit's own detectors are for voices, and take seconds to load
        "LIVEKIT_AGENTS_PRELOAD_LOCAL_INFERENCE": "0",
    }
