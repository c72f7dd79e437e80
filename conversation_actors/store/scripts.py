"""The Lua scripts in `lua/`, as sources with their digests.

Each write is checked there against the life, the epoch and the owner (`is_own` in `lua/_conversation.lua`).
"""

from dataclasses import dataclass
from functools import cache
from hashlib import sha1
from importlib import resources

SCHEMA = 3
"""Number of the layout of keys and fields. A script refuses what a newer layout has written."""

_QUEUEING = frozenset({"append", "delete", "archive_requeue", "revive"})
"""Scripts of a conversation that know its backlog too."""


@dataclass(frozen=True, slots=True)
class LuaScript:
    """One script, as EVAL and EVALSHA want it."""

    name: str
    source: str
    digest: str


@cache
def _text(name: str) -> str:
    return resources.files(__package__).joinpath("lua", f"{name}.lua").read_text(encoding="utf-8")


@cache
def script(name: str) -> LuaScript:
    """Load a script that works on one key."""
    return _script(name, _text(name))


@cache
def conversation_script(name: str) -> LuaScript:
    """Load a script that works on the keys of one conversation."""
    parts = ["_conversation", *(["_backlog"] if name in _QUEUEING else []), name]
    return _script(name, "\n".join(map(_text, parts)))


@cache
def heartbeat_script(name: str) -> LuaScript:
    """Load a script that works on the signs of life of one lease's holders."""
    return _script(f"heartbeat {name}", f"{_text('_heartbeats')}\n{_text(f'heartbeat_{name}')}")


def load_scripts() -> None:
    """Read now what an owner runs; each is read when it is first used otherwise."""
    for name in ("activate", "append", "save_snapshot"):
        conversation_script(name)
    script("index")


def _script(name: str, source: str) -> LuaScript:
    # SHA-1 is what EVALSHA names scripts by; nothing here is kept secret by it.
    return LuaScript(name, source, sha1(source.encode(), usedforsecurity=False).hexdigest())
