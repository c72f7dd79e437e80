"""Values of settings that take more than one word: lines by language, rising durations, topics of data messages."""

import json
import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator
from pydantic_settings import NoDecode

from agent_worker.lines import check_line
from conversation_actors.settings import Duration
from conversation_actors.sources import KEEPS_EMPTY

LIVEKITS_TOPICS = ("lk.", "lk-")
"""LiveKit's own topics begin so: what is typed (packets of older clients too), transcriptions, its remote sessions."""


def _steps(value: object) -> object:
    """Read ``"300,600,1800"``, or the same as a JSON list."""
    if isinstance(value, str) and not value.lstrip().startswith("["):
        return value.split(",")
    return json.loads(value) if isinstance(value, str) else value


def _rising(value: tuple[timedelta, ...]) -> tuple[timedelta, ...]:
    if not value or list(value) != sorted(value):
        message = "must be one or more durations, none shorter than the one before"
        raise ValueError(message)
    return value


def _by_language(value: object) -> object:
    """Read ``"Hello"``, or ``{"en": "Hello", "de": "Hallo"}`` as JSON, as lines by language."""
    if isinstance(value, str) and not re.match(r'\s*\{\s*["}]', value):  # a sentence may begin with a placeholder
        return {"": value}
    return json.loads(value) if isinstance(value, str) else value


def _with_known_placeholders(value: Mapping[str, str]) -> Mapping[str, str]:
    return {language: check_line(line) for language, line in value.items()}


Lines = Annotated[
    Mapping[str, str],
    NoDecode,
    BeforeValidator(_by_language),
    AfterValidator(_with_known_placeholders),
    KEEPS_EMPTY,
]
"""One sentence in several languages; the first one is for languages that are not there. ``{name}`` in it is what the
person is called, ``{visits}`` how often they have come, this time included."""
Steps = Annotated[tuple[Duration, ...], NoDecode, BeforeValidator(_steps), AfterValidator(_rising)]


def _topics(value: object) -> object:
    """Read ``"commands, files.*"``, or the same as a JSON list."""
    if isinstance(value, str) and not value.lstrip().startswith("["):
        return [topic for part in value.split(",") if (topic := part.strip())]
    return json.loads(value) if isinstance(value, str) else value


def _not_livekits(value: tuple[str, ...]) -> tuple[str, ...]:
    if any(topic.startswith(LIVEKITS_TOPICS) for topic in value):
        message = "topics that begin with lk. or lk- are LiveKit's own, and are never kept"
        raise ValueError(message)
    return value


Topics = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_topics), AfterValidator(_not_livekits)]
