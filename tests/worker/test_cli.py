"""The command line of the worker: what it takes, what it refuses, and with which code it ends."""

import argparse
import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from agent_worker import cli
from agent_worker.development import console
from agent_worker.example.agent import SupervisorAgent, SupportAgent
from agent_worker.settings import LanguageModelSettings
from agent_worker.worker.application import entrypoint_named
from agent_worker.worker.server import WorkerOptions, _load_by_calls, make_server
from conversation_actors import ClusterUnavailableError, InvalidInputError
from conversation_actors.items import AgentHandoff, Message
from tests.worker.conftest import TRANSCRIPT
from tests.worker.fakes_call import FakeJobs, running_job


@pytest.fixture
def _livekit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A LiveKit server that nobody connects to."""
    for name, value in {"URL": "ws://127.0.0.1:1", "API_KEY": "key", "API_SECRET": "s" * 32}.items():
        monkeypatch.setenv(f"LIVEKIT_{name}", value)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["answer"],
        ["talk"],
        ["talk", "--conversation", "c"],
        ["talk", "--conversation", "c", "--transcript", "x", "--turns", "-1"],
        ["talk", "--conversation", "c", "--transcript", "x", "--pause", "nan"],
        ["talk", "--conversation", "c", "--transcript", "x", "--pause", "3601"],
        ["dev", "--transcript", "x"],
        ["start", "--offline"],
        ["start", "--development"],
        ["work", "my_agent", "--entrypoint", "my_agent:entrypoint"],
        ["watch", "my_agent"],
    ],
)
def test_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """A mistake ends with 2 and one sentence, before anything is connected."""
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == cli.EXIT_USAGE
    assert "error:" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["start", "dev", "work", "watch", "console", "talk"])
def test_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Every command tells what it does."""
    with pytest.raises(SystemExit) as ended:
        cli.main([command, "--help"])
    assert ended.value.code == 0
    assert len(capsys.readouterr().out) > 200


def test_what_is_missing_is_named(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """With 2, one sentence, and no traceback."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    for arguments in (
        ["work"],
        ["watch"],
        ["start"],
        ["start", "my_agent"],
        ["dev"],
        ["console"],
        ["talk", "--conversation", "c", "--transcript", str(TRANSCRIPT)],
    ):
        assert cli.main(arguments) == cli.EXIT_USAGE
        told = capsys.readouterr()
        assert told.out == ""
        assert len(told.err.strip().splitlines()) == 1
        assert "set " in told.err


def test_an_entrypoint_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    """Found before anything is started."""
    assert cli.main(["work", "--entrypoint", "nowhere:nothing"]) == cli.EXIT_USAGE
    assert "nowhere:nothing" in capsys.readouterr().err


def test_a_transcript_that_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither for `talk` nor for the offline servers."""
    path = tmp_path / "call.json"
    path.write_text("{")
    assert cli.main(["dev", "--offline", "--transcript", str(path)]) == cli.EXIT_USAGE
    assert "line 1" in capsys.readouterr().err


def test_what_may_come_later_ends_with_one(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Ray is away: the kind and the sentence."""

    def away(_chosen: argparse.Namespace) -> int:
        message = "no cluster"
        raise ClusterUnavailableError(message)

    monkeypatch.setattr(cli, "_work", away)
    assert cli.main(["work"]) == cli.EXIT_FAILED
    assert capsys.readouterr().err == "ClusterUnavailableError: no cluster\n"


def test_what_a_parent_passes_on() -> None:
    """The worker's command line."""
    chosen = argparse.Namespace(application=None, entrypoint="a.b:c", verbose=True)
    assert cli._worker_arguments(chosen) == ["work", "--entrypoint", "a.b:c", "--verbose"]
    assert cli._worker_arguments(argparse.Namespace(application=None, entrypoint=None, verbose=False)) == ["work"]
    chosen = argparse.Namespace(application="agent.py:server", entrypoint=None, verbose=False)
    assert cli._worker_arguments(chosen) == ["work", "agent.py:server"]


def test_the_parent_is_small() -> None:
    """It imports neither LiveKit's agents nor Ray: nothing in it can fail while the worker lives."""
    code = "import sys, agent_worker.worker.parent; print([m for m in ('ray', 'livekit.agents') if m in sys.modules])"
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_names_of_the_package_are_what_they_say() -> None:
    """However often, and whatever was imported before: importing a module puts its own name there."""
    code = (
        "import agent_worker, agent_worker.call.attach, agent_worker.worker.migration, types\n"
        "found = [getattr(agent_worker, name) for name in agent_worker.__all__ * 2]\n"
        "print([one for one in found if isinstance(one, types.ModuleType)])"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# The worker's own


@pytest.mark.parametrize("name", ["", ":", "os", "os:", "os:nothing", "os:sep", "no.such.module:f", "..a:b"])
def test_names_of_no_entrypoint(name: str) -> None:
    """A typed refusal, whatever was given."""
    with pytest.raises(InvalidInputError) as error:
        entrypoint_named(name)
    assert error.value.field == "entrypoint"


def test_the_name_of_an_entrypoint() -> None:
    """``package.module:function``."""
    assert entrypoint_named("asyncio:sleep") is asyncio.sleep  # type: ignore[comparison-overlap]  # any function will do


def test_the_load_may_be_a_number_of_calls() -> None:
    """What else the machine does is no matter then."""
    jobs: Any = FakeJobs(running_job("1"), running_job("2"))
    assert _load_by_calls(4, jobs) == 0.5


@pytest.mark.usefixtures("_livekit")
def test_workers_have_names() -> None:
    """Of their own, where no parent gave one."""
    first, second = WorkerOptions(), WorkerOptions()
    assert first.instance != second.instance


def test_a_worker_without_livekit_is_not_made() -> None:
    """One sentence says what is missing."""
    with pytest.raises(InvalidInputError, match="LIVEKIT_URL"):
        make_server(WorkerOptions())


# The console


async def test_a_console_without_a_key_asks_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is opened."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    lines: list[str] = []
    with pytest.raises(InvalidInputError, match="OPENAI_API_KEY"):
        await console.console(
            "c", LanguageModelSettings(base_url="https://api.example.com/v1", api_key=None), lines.append
        )
    assert lines == []


# The agent that has the word


def test_a_handover_outlives_a_crash() -> None:
    """Whoever had the word last has it again; one that is unknown, or none, is the first."""
    to_supervisor = AgentHandoff(old_agent_id="support_agent", new_agent_id="supervisor_agent")
    back = AgentHandoff(old_agent_id="supervisor_agent", new_agent_id="support_agent")
    unknown = AgentHandoff(old_agent_id=None, new_agent_id="somebody")
    said = Message(role="user", content="Hello?")
    assert isinstance(SupportAgent.of([]), SupportAgent)
    assert isinstance(SupportAgent.of([said, to_supervisor, said]), SupervisorAgent)
    assert isinstance(SupportAgent.of([to_supervisor, back]), SupportAgent)
    assert isinstance(SupportAgent.of([to_supervisor, unknown]), SupportAgent)
