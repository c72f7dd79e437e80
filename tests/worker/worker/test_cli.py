"""The command line of the worker: what it takes, what it refuses, and with which code it ends."""

import asyncio
import logging
import subprocess
import sys
import tomllib
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from livekit.agents import AgentServer

from agent_worker import cli, commands
from agent_worker.commands import WorkerCommand
from agent_worker.development import console
from agent_worker.example.agent import SupervisorAgent, SupportAgent
from agent_worker.settings import LanguageModelSettings, LiveKitSettings, WorkerSettings
from agent_worker.worker.application import entrypoint_named
from agent_worker.worker.server import WorkerOptions, _load_by_calls, make_server
from conversation_actors import ClusterUnavailableError, InvalidInputError
from conversation_actors.items import AgentHandoff, Message
from tests.support.sessions.fake_livekit import FakeJobs, running_job
from tests.worker.conftest import TRANSCRIPT

ROOT = Path(__file__).parents[3]


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
        ["talk", "--conversation", "c", "--transcript", "x", "--pause", "soon"],
        ["talk", "--conversation", "c", "--transcript", "x", "--pause", "3601"],
        ["dev", "--transcript", "x"],
        ["start", "--transcript", "x"],
        ["start", "--development"],
        ["start", "--url"],
        ["start", "--log-level", "loud"],
        ["work", "my_agent", "--entrypoint", "my_agent:entrypoint"],
        ["work", "--offline"],
        ["watch", "my_agent"],
        ["console", "--offline", "--llm-url", "http://127.0.0.1:1/v1"],
    ],
)
def test_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """A mistake ends with 2 and is told, before anything is connected."""
    assert cli.main(arguments) == cli.EXIT_USAGE
    told = capsys.readouterr()
    assert "Usage:" in told.out + told.err or told.err.startswith(("agent-worker: ", "Error: "))
    assert "Traceback" not in told.err


@pytest.mark.parametrize("command", ["start", "dev", "work", "watch", "console", "talk"])
@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help(command: str, option: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Every command tells what it does, in lines that were wrapped once: they fit, and none breaks off early."""
    monkeypatch.setenv("COLUMNS", "80")
    assert cli.main([command, option]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(len(line) for line in lines) <= 80
    description = lines[2 : lines.index("", 2)]
    assert len(description) >= 1
    for line, following in pairwise(description):
        assert len(line) + len(following.split()[0]) >= 78, line


def test_versions(capsys: pytest.CaptureFixture[str]) -> None:
    """What somebody who reports a fault has to know: one line each."""
    assert cli.main(["--version"]) == 0
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert names == ["conversation-actors", "livekit-agents", "Ray", "Python"]


def test_the_script_has_a_name_of_its_own() -> None:
    """What `pip install` puts on the path is this command line."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["scripts"]["agent-worker"] == "agent_worker.cli:main"


def test_completion_is_offered(capsys: pytest.CaptureFixture[str]) -> None:
    """For the shell in use."""
    assert cli.main(["--help"]) == 0
    assert "--install-completion" in capsys.readouterr().out


WITHOUT_LIVEKIT = {"LIVEKIT_URL": "", "LIVEKIT_API_KEY": "", "LIVEKIT_API_SECRET": ""}


def test_what_is_missing_is_named(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """With 2, one sentence, and no traceback."""
    for name in (*WITHOUT_LIVEKIT, "OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    for arguments in (
        ["work"],
        ["watch"],
        ["start"],
        ["start", "--offline"],
        ["start", "my_agent"],
        ["dev"],
        ["console"],
        ["talk", "--conversation", "c", "--transcript", str(TRANSCRIPT)],
    ):
        assert cli.main(arguments) == cli.EXIT_USAGE
        told = capsys.readouterr()
        assert told.out == ""
        lines = [line for line in told.err.strip().splitlines() if "WARNING" not in line]
        assert len(lines) == 1
        assert lines[0].startswith("agent-worker: ")
        assert "set " in lines[0]


def test_a_console_without_an_account_is_told_of_one_that_needs_none(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One sentence names the variable, and the option."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    assert cli.main(["console"]) == cli.EXIT_USAGE
    told = capsys.readouterr().err
    assert "OPENAI_API_KEY" in told
    assert "--offline" in told


@pytest.mark.usefixtures("_livekit")
@pytest.mark.parametrize("command", ["start", "dev", "work"])
def test_the_example_agent_without_an_account_does_not_start(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would fail in each of its calls: the sentence comes once, and before the first."""
    monkeypatch.setenv("CONVERSATION_REDIS_URL", "redis://127.0.0.1:1")
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "DEEPGRAM_API_KEY", "DEEPGRAM_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    assert cli.main([command]) == cli.EXIT_USAGE
    assert "OPENAI_API_KEY" in capsys.readouterr().err
    monkeypatch.setenv("OPENAI_API_KEY", "sk-1")
    assert cli.main([command]) == cli.EXIT_USAGE
    assert "DEEPGRAM_API_KEY" in capsys.readouterr().err


@pytest.mark.usefixtures("_livekit")
@pytest.mark.parametrize("command", ["start", "dev", "work", "watch"])
@pytest.mark.parametrize("url", ["foo", "foo://host", "ws://", "ws://host:port", "127.0.0.1:7880", "ws://u:pw@:1"])
def test_a_livekit_url_that_is_none_is_told_at_the_start(
    url: str, command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One sentence with what was given (but no password), and how one looks; from the environment or the option."""
    monkeypatch.setenv("CONVERSATION_REDIS_URL", "redis://127.0.0.1:1")
    monkeypatch.setenv("LIVEKIT_URL", url)
    assert cli.main([command]) == cli.EXIT_USAGE
    told = capsys.readouterr().err
    assert told.startswith("agent-worker: url: LIVEKIT_URL has to be a URL such as ws://127.0.0.1:7880")
    assert len(told.splitlines()) == 1
    assert (url in told) == ("@" not in url)
    monkeypatch.setenv("LIVEKIT_URL", "ws://127.0.0.1:7880")
    assert cli.main([command, "--url", url]) == cli.EXIT_USAGE
    assert capsys.readouterr().err == told


@pytest.mark.usefixtures("_livekit")
def test_options_go_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the supervisor and in what it starts; a secret is on no command line but the one it was given on."""
    for name in ("LIVEKIT_URL", "LIVEKIT_API_KEY", "LIVEKIT_API_SECRET", "AGENT_DRAIN"):
        monkeypatch.setenv(name, "x")
    before = logging.getLogger().level
    seen: list[tuple[WorkerCommand, LiveKitSettings, WorkerSettings]] = []

    def start(command: WorkerCommand) -> int:
        seen.append((command, LiveKitSettings(), WorkerSettings()))
        return 0

    monkeypatch.setattr(commands, "start", start)
    given = ["--url", "wss://a.example", "--api-key", "k", "--api-secret", "s", "--drain-timeout", "90"]
    assert cli.main(["start", *given, "--log-level", "WARN"]) == 0
    command, livekit, worker = seen[0]
    assert livekit.require() == ("wss://a.example", "k", "s")
    assert worker.drain == timedelta(seconds=90)
    assert command.arguments == ["work", "--log-level", "warn"]
    assert logging.getLogger().level == logging.WARNING
    logging.getLogger().setLevel(before)


@pytest.mark.usefixtures("_livekit")
def test_a_drain_timeout_that_is_none(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Told at the start, and not at the end."""
    monkeypatch.setenv("AGENT_DRAIN", "1")
    assert cli.main(["start", "--drain-timeout", "later"]) == cli.EXIT_USAGE
    assert "drain" in capsys.readouterr().err.lower()


@pytest.mark.usefixtures("_livekit")
def test_an_applications_server_drains_as_long_as_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """AGENT_DRAIN, or the option, where one is given; else as the application has made it."""
    server = AgentServer(drain_timeout=7)
    make_server(WorkerOptions(application=server))
    assert server._drain_timeout == 7
    monkeypatch.setenv("AGENT_DRAIN", "90")
    make_server(WorkerOptions(application=server))
    assert server._drain_timeout == 90


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
    """Ray is away: one sentence."""

    def away(_command: WorkerCommand, *, is_development: bool) -> int:
        message = f"no cluster ({is_development})"
        raise ClusterUnavailableError(message)

    monkeypatch.setattr(commands, "work", away)
    assert cli.main(["work"]) == commands.EXIT_FAILED
    assert capsys.readouterr().err == "agent-worker: no cluster (False)\n"


@pytest.mark.parametrize(
    ("module", "told"), [("livekit.agents", "livekit-agents"), ("numpy", "numpy"), ("PIL", "pillow")]
)
def test_an_extra_that_is_missing_is_one_sentence(
    module: str, told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It names the command, what the command needs, and what to install."""

    def lacking() -> int:
        raise ModuleNotFoundError(module, name=module)

    monkeypatch.setattr(commands, "watch", lacking)
    assert cli.main(["watch"]) == cli.EXIT_USAGE
    sentence = f"agent-worker: watch needs {told}: pip install 'conversation-actors[agent]'\n"
    assert capsys.readouterr().err == sentence


def test_another_module_that_is_missing_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """No extra brings it: it is not talked away."""

    def broken() -> int:
        raise ModuleNotFoundError(name="nothing")

    monkeypatch.setattr(commands, "watch", broken)
    with pytest.raises(ModuleNotFoundError):
        cli.main(["watch"])


def test_ctrl_c_is_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a command has no end of its own for it."""

    def interrupted() -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(commands, "watch", interrupted)
    assert cli.main(["watch"]) in {1, cli.EXIT_INTERRUPTED}


def test_what_a_supervisor_passes_on() -> None:
    """The worker's command line."""
    command = WorkerCommand(entrypoint="a.b:c", log_level="debug")
    assert command.arguments == ["work", "--entrypoint", "a.b:c", "--log-level", "debug"]
    assert WorkerCommand().arguments == ["work"]
    assert WorkerCommand(application="agent.py:server").arguments == ["work", "agent.py:server"]


def test_the_supervisor_is_small() -> None:
    """It imports neither LiveKit's agents nor Ray: nothing in it can fail while the worker lives."""
    code = "import sys, agent_worker.cli, agent_worker.worker.supervisor\n"
    code += "print([m for m in ('ray', 'livekit.agents') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_names_of_the_package_are_what_they_say() -> None:
    """However often, and whatever was imported before: importing a module puts its own name there."""
    code = (
        "import agent_worker, agent_worker.call.attach, agent_worker.worker.migration, types\n"
        "found = [getattr(agent_worker, name) for name in agent_worker.__all__ * 2]\n"
        "print([one for one in found if isinstance(one, types.ModuleType)])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
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
    """Of their own, where no supervisor gave one."""
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


@pytest.mark.usefixtures("_livekit")
@pytest.mark.parametrize("arguments", [["start", "--offline"], ["dev", "--offline"]])
def test_a_worker_refuses_memory(
    arguments: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is several processes, and its agents die: with 2, and one sentence."""
    monkeypatch.setenv("CONVERSATION_REDIS_URL", "memory://")
    assert cli.main(arguments) == cli.EXIT_USAGE
    (line,) = [line for line in capsys.readouterr().err.strip().splitlines() if "WARNING" not in line]
    assert line == (
        "agent-worker: redis_url (CONVERSATION_REDIS_URL): memory:// is the memory of one process, "
        "and `agent-worker` works with several; name a Redis server"
    )


def test_a_talk_that_is_only_watched_refuses_memory(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody else could write there, so that it would wait for ever: with 2, and one sentence."""
    monkeypatch.setenv("CONVERSATION_REDIS_URL", "memory://")
    assert cli.main(["talk", "--conversation", "watched", "--watch"]) == cli.EXIT_USAGE
    assert capsys.readouterr().err.strip() == (
        "agent-worker: redis_url (CONVERSATION_REDIS_URL): memory:// is the memory of one process, "
        "and `agent-worker talk --watch` works with several; name a Redis server"
    )
