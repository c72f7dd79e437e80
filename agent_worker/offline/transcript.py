"""A written call: what the caller says, which tools the agent uses, and what it answers.

The offline model follows it, and the talking process speaks its caller's part. Every user text is unique, so that a
position in the call can be found from the messages alone.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from conversation_actors.errors import InvalidInputError


def bundled() -> Path:
    """Return the path of the bundled call: in the package's data if that is there, else in a checkout's tests/data."""
    package = Path(__file__).parents[1]
    installed = package / "data" / "transcript.json"
    return installed if installed.exists() else package.parent / "tests" / "data" / "transcript.json"


MAX_BYTES = 8 << 20
"""The largest file that is read; a larger one is no transcript of a call."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class ToolUse(_Part):
    """One tool call, and what the tool returns for it."""

    name: str = Field(min_length=1)
    arguments: Mapping[str, Any]
    output: str
    is_error: bool = False


class Step(_Part):
    """The tools that are called in one reply of the model, and what is said meanwhile."""

    say: str = ""
    calls: list[ToolUse] = Field(min_length=1)


class Turn(_Part):
    """The caller's words, and everything that the agent does about them. `interrupts` says that the caller cuts in."""

    user: str = Field(min_length=1)
    interrupts: bool = False
    steps: list[Step] = Field(default_factory=list, max_length=3)
    reply: str = Field(min_length=1)


class Transcript(_Part):
    """A whole call."""

    title: str
    about: str = ""
    greeting: str = "Hello. How can I help?"
    turns: list[Turn] = Field(min_length=1)

    @model_validator(mode="after")
    def _texts_are_unique(self) -> Self:
        seen: dict[str, int] = {}
        for number, turn in enumerate(self.turns):
            first = seen.setdefault(spoken(turn.user), number)
            if first != number:
                message = f"turns.{number}.user: the same words as turns.{first}.user; a position could not be found"
                raise ValueError(message)
        return self

    def position(self, user_text: str) -> int | None:
        """Return the number of the turn with these words of the caller, or None."""
        wanted = spoken(user_text)
        return next((number for number, turn in enumerate(self.turns) if spoken(turn.user) == wanted), None)


def spoken(text: str) -> str:
    """Return only the words of a text, because a recogniser's punctuation and capitals differ from the writer's."""
    return " ".join(re.findall(r"[^\W_]+", text.casefold()))


def load(path: Path) -> Transcript:
    """Read and check a transcript file.

    Raises `InvalidInputError`. Its text names the file, and the line (bad JSON) or the field (bad content).
    """
    try:
        size = path.stat().st_size
        text = path.read_text(encoding="utf-8") if size <= MAX_BYTES else None
    except (OSError, UnicodeDecodeError) as error:
        message = f"transcript {path}: {error}"
        raise InvalidInputError(message, field="transcript") from None
    if text is None:
        message = f"transcript {path}: {size} bytes; the limit is {MAX_BYTES}"
        raise InvalidInputError(message, field="transcript")
    return parse(text, str(path))


def parse(text: str, name: str) -> Transcript:
    """Read and check a transcript's text. Raises `InvalidInputError`, whose text has `name` for the file."""
    try:
        return Transcript.model_validate(json.loads(text))
    except json.JSONDecodeError as error:
        message = f"transcript {name}: line {error.lineno}, column {error.colno}: {error.msg}"
        raise InvalidInputError(message, field="transcript") from None
    except RecursionError:
        message = f"transcript {name}: nested too deep"
        raise InvalidInputError(message, field="transcript") from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(str(part) for part in first["loc"]) or "transcript"
        message = f"transcript {name}: {field}: {first['msg']}"
        raise InvalidInputError(message, field=field) from None
