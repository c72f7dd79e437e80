"""Writes docs/settings.md from the settings themselves: ``python -m tests.support.settings_page``."""

import ast
import inspect
import textwrap
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo

from agent_worker import settings as worker
from conversation_actors import settings
from conversation_actors.settings import SettingsGroup
from conversation_actors.sources.groups import names_of

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"
GROUPS: tuple[type[SettingsGroup], ...] = tuple(
    group
    for module in (settings, worker)
    for name, group in vars(module).items()
    if isinstance(group, type) and issubclass(group, SettingsGroup)
    if group.__module__ == module.__name__ and not name.startswith("_")
)
"""In the order of the source; what begins with an underscore is for the code alone."""
_NONE = "–"  # noqa: RUF001  # no number follows that it could be a minus of
HEAD = """# Settings

This page lists every setting by its environment variable. `python -m tests.support.settings_page` writes it from the
code, and a test compares the two.

**Where settings come from.** A keyword (`Settings(ttl=…)`; the headings below name the classes) comes first, then the
environment, then `.env.local` and `.env` in the current directory. Empty counts as unset. The settings of the process
that starts an owner are that owner's until it stops: give all clients of a conversation the same.

**Durations** are seconds (`300`, `1.5`), numbers with units from the largest to the smallest (`500ms`, `5m`, `1h30m`,
`7d`), or ISO 8601 (`PT5M`).

**A mistake** is an `InvalidInputError` of one sentence, with the field and the place where it was set:
`ttl (.env: CONVERSATION_TTL): must be longer than zero`. No error, log or `repr` shows a secret.

**A misspelt name** that begins with `CONVERSATION_` or `AGENT_` is logged once a process, with the nearest one that
exists. Variables that Kubernetes sets for a service are not taken for misspelt.

**A `.env` file** that is a directory, cannot be read, is not UTF-8 or has a line that is not `NAME=value` is an
`InvalidInputError` with the file and the line. A virtual environment of that name is passed over.

**Redis by its parts.** If no URL is set and `REDIS_HOST` is, the URL is made of the `REDIS_…` variables.

**At SIGTERM** a program that has no handler of its own sends what its conversations have recorded, for at most
`CONVERSATION_TIMEOUT_CLOSE`, and then ends by the signal. A second SIGTERM ends it at once. A handler of yours, set
before or after, replaces this: with `signal.signal(signal.SIGTERM, signal.SIG_DFL)` after opening, the process ends
at once.

What most people set:

| variable | meaning |
| --- | --- |
| `CONVERSATION_REDIS_URL` | where Redis is |
| `RAY_ADDRESS` | which Ray cluster to join; a Ray connection that the process has comes first |
| `CONVERSATION_DURABILITY` | when a write is acknowledged: `redis`, `fsync` or `replicas=2` |
| `CONVERSATION_TTL`, `CONVERSATION_IDLE_TIMEOUT` | when a conversation is forgotten, and when its owner is passivated |
| `LIVEKIT_URL`, `LIVEKIT_API_KEY`, `LIVEKIT_API_SECRET` | which LiveKit the worker serves |
| `OPENAI_API_KEY`, `DEEPGRAM_API_KEY` | which models the example agent speaks to |
| `AGENT_GREETING`, `AGENT_WELCOME_BACK` | what the agent says unasked |
"""


def page() -> str:
    """Return the whole page."""
    return "\n".join([HEAD, *(section(group) for group in GROUPS)])


def section(group: type[SettingsGroup]) -> str:
    """Return a group as a heading and a table."""
    meanings = docstrings(group)
    first = " ".join((inspect.getdoc(group) or "").split("\n\n", 1)[0].replace("``", "`").split())
    rows = [f"## `{group.__name__}`", "", first, "", "| variable | default | meaning |", "| --- | --- | --- |"]
    for field, names in names_of(group).items():
        described = group.model_fields[field]
        if field in inner_groups(group):
            continue
        told = ", ".join(f"`{name}`" for name in names)
        rows.append(f"| {told} | {default(described)} | {meanings.get(field, '')} |")
    return "\n".join([*rows, ""])


def inner_groups(group: type[SettingsGroup]) -> set[str]:
    """Return the fields of a group that are groups themselves."""
    kinds = {field: described.annotation for field, described in group.model_fields.items()}
    return {field for field, kind in kinds.items() if isinstance(kind, type) and issubclass(kind, SettingsGroup)}


def docstrings(group: type[SettingsGroup]) -> dict[str, str]:
    """Return what stands behind each field in the source, in one line, with the marks of this page."""
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(group))).body
    assert isinstance(definition, ast.ClassDef)
    found = {}
    for field, following in zip(definition.body, definition.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(following, ast.Expr):
            text = ast.literal_eval(following.value)
            found[field.target.id] = " ".join(str(text).replace("``", "`").replace("|", "\\|").split())
    return found


def default(field: FieldInfo) -> str:
    """Return a default as it would be written in a variable."""
    if field.default_factory is None:
        value = field.default
    else:
        made: Any = field.get_default(call_default_factory=True, validated_data={})
        value = next(iter(made.values()), None) if isinstance(made, Mapping) else made
    return _NONE if value in (None, "", ()) else f"`{written(value)}`"


def written(value: Any) -> str:
    """Return a value as it would be written in a variable."""
    if isinstance(value, tuple):
        return ",".join(written(part) for part in value)
    if isinstance(value, timedelta):
        return duration(value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def duration(value: timedelta) -> str:
    """Return a duration in the largest unit that it is a whole number of; below a second, in milliseconds."""
    seconds = value.total_seconds()
    for unit, size in {"d": 86_400, "h": 3600, "m": 60, "s": 1}.items():
        if seconds % size == 0:
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds * 1000:.0f}ms"


if __name__ == "__main__":
    PAGE.write_text(page())
