"""What users of the package can rely on: its names, its errors, what importing it costs, what is in the wheel."""

import ast
import copy
import inspect
import os
import pickle
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from importlib.metadata import packages_distributions, requires
from pathlib import Path
from typing import Any

import pytest

import conversation_actors
from conversation_actors import errors
from conversation_actors.errors import ConversationError, CorruptStateError

pytestmark = pytest.mark.processes

ROOT = Path(__file__).parents[3]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

NEVER_SEEN_BY_A_CALLER = {"ActivationLostError", "FencedError", "PassivatedError"}
PUBLIC_NAMES = {
    "AttributesChanged",
    "ConversationClosed",
    "ConversationReopened",
    "HistoryCleared",
    "ItemsAppended",
    "ItemsEvicted",
    "ItemsRemoved",
    "LeaseAcquired",
    "LeaseReleased",
    "NothingChanged",
    "ParticipantForgotten",
    "ParticipantJoined",
    "ParticipantLeft",
    "ParticipantUpdated",
    "RetentionChanged",
    "SummaryChanged",
    "Closing",
    "Summary",
    "Found",
    "HeartbeatRecord",
    "Heartbeats",
    "ActivationInfo",
    "AgentHandoff",
    "ConversationClient",
    "ConversationHandle",
    "DataMessage",
    "Entry",
    "FunctionCall",
    "FunctionCallOutput",
    "ArchiveSettings",
    "BackendSettings",
    "HistoryLimits",
    "Item",
    "Lag",
    "Lease",
    "Message",
    "OtherItem",
    "Page",
    "Participant",
    "Receipt",
    "SessionPage",
    "SessionRecord",
    "SessionSettings",
    "Settings",
    "Snapshot",
    "Timeouts",
    "PoolSettings",
    "check_cluster",
    "item_from_dict",
}
SAMPLES = {str: "a text", int: 7, float: 1.5, bool: True}


def error_classes(base: type[ConversationError] = ConversationError) -> Iterator[type[ConversationError]]:
    """The whole tree below `base`, and `base`."""
    yield base
    for child in base.__subclasses__():
        yield from error_classes(child)


def an_error(error_class: type[ConversationError]) -> ConversationError:
    """One instance, with every attribute set."""
    parameters = inspect.signature(error_class).parameters.values()
    keywords = {p.name: SAMPLES[p.annotation] for p in parameters if p.kind is p.KEYWORD_ONLY}
    return error_class("what happened", **keywords)


def test_the_public_names_are_these() -> None:
    """A name that comes or goes is a decision, not an accident."""
    public_errors = {cls.__name__ for cls in error_classes() if cls.__module__ == errors.__name__}

    assert set(conversation_actors.__all__) == PUBLIC_NAMES | (public_errors - NEVER_SEEN_BY_A_CALLER)
    assert len(conversation_actors.__all__) == len(set(conversation_actors.__all__))


def test_every_public_name_is_there() -> None:
    """Names that are imported lazily resolve too, and `dir()` shows them."""
    missing = [name for name in conversation_actors.__all__ if not hasattr(conversation_actors, name)]

    assert missing == []
    assert set(conversation_actors.__all__) <= set(dir(conversation_actors))


def test_an_unknown_name_is_an_attribute_error() -> None:
    """A lazy façade must not answer for names it does not have."""
    with pytest.raises(AttributeError):
        _ = conversation_actors.no_such_name  # type: ignore[attr-defined]  # what is tested


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("error_class", list(error_classes()))
def test_errors_survive_pickling(error_class: type[ConversationError], protocol: int) -> None:
    """An error that crosses a process arrives as the same class, text and attributes."""
    error = an_error(error_class)

    arrived = pickle.loads(pickle.dumps(error, protocol))

    assert type(arrived) is error_class
    assert str(arrived) == "what happened"
    assert vars(arrived) == vars(error)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
@pytest.mark.parametrize("error_class", list(error_classes()))
def test_errors_survive_copying(error_class: type[ConversationError], copied: Any) -> None:
    """Ray and traceback tools copy exceptions; nothing gets lost there either."""
    error = an_error(error_class)

    twin = copied(error)

    assert type(twin) is error_class
    assert twin is not error
    assert (twin.args, vars(twin)) == (error.args, vars(error))


def test_the_error_tree_in_the_docstring_is_the_real_one() -> None:
    """The tree on top of errors.py names every class there is, and no other."""
    documented = set(re.findall(r"\b\w+Error\b", errors.__doc__ or ""))

    assert documented == {cls.__name__ for cls in error_classes() if cls.__module__ == errors.__name__}


def test_a_corrupt_state_error_learns_its_key() -> None:
    """The codec knows the position, the store adds the key; neither is lost."""
    error = CorruptStateError("not JSON", key="", position=12).at("conv:{a}:journal")

    assert (error.key, error.position) == ("conv:{a}:journal", 12)
    assert str(error) == "conv:{a}:journal: not JSON"


def test_importing_the_package_is_cheap() -> None:
    """Ray, livekit and the terminal libraries come when they are used, not with `import conversation_actors`."""
    program = "import sys, conversation_actors; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    output = subprocess.check_output([sys.executable, "-c", program], text=True, env=environment, timeout=60)

    assert "conversation_actors" in output.split()
    assert {"ray", "livekit", "rich", "typer"} & set(output.split()) == set()


def test_every_dependency_has_both_bounds() -> None:
    """Neither an older nor a future version is installed untested; extras refer to the project itself."""
    extras = PROJECT["optional-dependencies"]
    requirements = [*PROJECT["dependencies"], *(line for extra in extras.values() for line in extra)]
    unbounded = [line for line in requirements if not re.fullmatch(r"[\w.-]+(\[\w+\])?>=[\w.]+,<[\w.]+", line)]

    assert unbounded == ["conversation-actors[agent,archive,embedded,models]"]


@pytest.mark.parametrize(
    ("package", "extras"), [("conversation_actors", ["archive", "embedded"]), ("agent_worker", ["agent", "embedded"])]
)
def test_what_is_imported_is_declared(package: str, extras: list[str]) -> None:
    """Nothing is there only because a library of ours happens to bring it; `brought` names what belongs to one.

    `dotenv`: by which pydantic-settings reads a file, and we tell which of its lines is wrong.
    """
    brought = {
        "dotenv": "pydantic-settings",
        "launcher": "conversation_actors.runtime.fork_server",
        "psutil": "ray",
        "pydantic_core": "pydantic",
    }
    assert any(line.startswith("python-dotenv") for line in requires("pydantic-settings") or ())
    lines = [*PROJECT["dependencies"], *(line for extra in extras for line in PROJECT["optional-dependencies"][extra])]
    declared = {re.split(r"[\[>]", line)[0].lower() for line in lines}
    distributions = packages_distributions()
    for name in (
        imported_by(ROOT / package) - sys.stdlib_module_names - {"conversation_actors", "agent_worker", *brought}
    ):
        assert {found.lower() for found in distributions.get(name, [])} & declared, name


def imported_by(package: Path) -> set[str]:
    """Return the first names of all that a package's modules import."""
    nodes = [node for path in package.rglob("*.py") for node in ast.walk(ast.parse(path.read_text()))]
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module and not node.level}
    return {name.partition(".")[0] for name in names}


def test_the_dashboards_ray_is_the_same() -> None:
    """An extra does not narrow what the package itself allows."""
    ray = next(line for line in PROJECT["dependencies"] if line.startswith("ray>"))
    assert PROJECT["optional-dependencies"]["dashboard"] == [ray.replace("ray", "ray[default]", 1)]


def test_the_licence_is_named_and_there() -> None:
    """MIT, in a file that the wheel has."""
    assert (PROJECT["license"], PROJECT["license-files"]) == ("MIT", ["LICENSE"])
    assert (ROOT / "LICENSE").read_text().startswith("MIT License")


def test_the_wheel_has_everything(tmp_path: Path) -> None:
    """Every module, the type marker, the Lua scripts, the page with its library and the demo's transcript."""
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)],
        cwd=ROOT,
        check=True,
        capture_output=True,
        timeout=60,
    )
    packed = set(zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist())

    expected = {
        str(path.relative_to(ROOT))
        for package in ("conversation_actors", "agent_worker")
        for pattern in ("*.py", "*.lua", "py.typed")
        for path in (ROOT / package).rglob(pattern)
    }
    data = {f"agent_worker/data/{path.name}" for path in (ROOT / "tests/data").glob("*.json")}
    assert {"conversation_actors/py.typed", "agent_worker/py.typed"} <= expected
    page = [path for place in ("web", "web/vendor") for path in (ROOT / "agent_worker" / place).iterdir()]
    web = {str(path.relative_to(ROOT)) for path in page if path.is_file()}
    assert "agent_worker/web/vendor/livekit-client.umd.js" in web
    assert expected | data | web <= packed


@pytest.mark.parametrize(
    ("ci", "body", "outcome"),
    [
        ("true", "pytest.skip('no server')", "1 failed"),
        ("true", "pytest.skip('not on this platform: no signals')", "1 skipped"),
        ("", "pytest.skip('no server')", "1 skipped"),
        ("true", "pytest.xfail('known')", "1 xfailed"),
    ],
)
def test_a_skipped_test_fails_in_ci(tmp_path: Path, ci: str, body: str, outcome: str) -> None:
    """A server that is missing in CI is found at once, instead of a green run that tested nothing."""
    (tmp_path / "conftest.py").write_text((ROOT / "tests/conftest.py").read_text())
    (tmp_path / "test_it.py").write_text(f"import pytest\n\ndef test_it():\n    {body}\n")
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", tmp_path, tmp_path],
        env={**os.environ, "CI": ci},
        cwd=tmp_path,
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert outcome in run.stdout.splitlines()[-1]
    assert (run.returncode == 0) is (outcome != "1 failed")


def test_a_skipped_module_fails_in_ci(tmp_path: Path) -> None:
    """The same for a whole module, where the skip happens before there is a test."""
    (tmp_path / "conftest.py").write_text((ROOT / "tests/conftest.py").read_text())
    (tmp_path / "test_it.py").write_text("import pytest\n\npytest.importorskip('no_such_module')\n")
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", tmp_path, tmp_path],
        env={**os.environ, "CI": "true"},
        cwd=tmp_path,
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert run.returncode != 0
    assert "skipped in CI" in run.stdout
