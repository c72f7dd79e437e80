"""Which classes are found by a name that stands in the store."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from livekit.agents import Agent

from agent_worker.session.agent_classes import found_class

_AGENT = "from livekit.agents import Agent\n\n\nclass Found(Agent):\n    pass\n"
_MODULES = ("program_of_first", "module_beside", "library_installed")


@pytest.fixture
def first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Agent]:
    """The first agent of a program, with a module beside it and an environment with a library beneath it."""
    libraries = tmp_path / ".venv" / "lib" / "site-packages"
    libraries.mkdir(parents=True)
    for name in _MODULES:
        directory = libraries if name.startswith("library") else tmp_path
        (directory / f"{name}.py").write_text(_AGENT)
    for directory in (libraries, tmp_path):
        monkeypatch.syspath_prepend(str(directory))
    module = importlib.import_module("program_of_first")
    yield module.Found(instructions="")
    for name in _MODULES:
        sys.modules.pop(name, None)


def test_a_module_beside_the_first_agents_is_imported_for_its_class(first: Agent) -> None:
    """It is of the same program, though nothing has imported it yet."""
    found = found_class("module_beside:Found", first)

    assert found is not None
    assert issubclass(found, Agent)


@pytest.mark.parametrize("name", ["library_installed:Found", "this:s", "nosuch_module:A"])
def test_no_name_in_the_store_has_a_library_imported(first: Agent, name: str) -> None:
    """Whoever can write to the store chooses that name; an environment often lies in the program's own directory."""
    sys.modules.pop("this", None)

    assert found_class(name, first) is None
    assert name.partition(":")[0] not in sys.modules
