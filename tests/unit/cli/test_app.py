"""The command line itself: what it answers before any command has begun, and how it ends."""

import os
import subprocess
import sys
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path

import pytest

from conversation_actors.cli import app as cli
from conversation_actors.errors import CorruptStateError, InvalidInputError

pytestmark = pytest.mark.processes

COMMANDS = [command.name or getattr(command.callback, "__name__", "") for command in cli.app.registered_commands]


class Failing:
    """A command line all of whose commands fail."""

    registered_commands = ()
    registered_groups = ()

    def __init__(self, raised: BaseException) -> None:
        """With this."""
        self._raised = raised

    def __call__(self, **_: object) -> None:
        """Fail."""
        raise self._raised


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own, as from a terminal without colours."""
    removed = ("CONVERSATION_", "REDIS_", "RAY_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(removed)}
    environment |= {"NO_COLOR": "1", "TERM": "dumb", **variables}
    command = [sys.executable, "-m", "conversation_actors.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment)


def test_the_terminal_wraps_the_help_of_every_group() -> None:
    """Each paragraph is one line, whatever line breaks the source has."""
    cli._leave_wrapping_to_the_terminal()
    groups = [one.typer_instance for one in cli.app.registered_groups if one.typer_instance is not None]
    helps = [command.help for group in groups for command in group.registered_commands]
    assert len(helps) >= len(groups) == 3
    assert all(told and "\n" not in told.replace("\n\n", "") for told in helps)


def test_the_versions_are_told() -> None:
    """Ours, and of what all nodes of a cluster must have the same."""
    ran = run("--version")
    assert ran.returncode == 0, ran.stderr
    ours, ray, python = ran.stdout.splitlines()
    assert ours == f"conversation-actors {version('conversation-actors')}"
    assert ray == f"Ray {version('ray')}"
    assert python == "Python {}.{}.{}".format(*sys.version_info[:3])


def test_a_shell_can_complete_it() -> None:
    """With the options that every such program has."""
    told = run("--help").stdout
    assert "--install-completion" in told
    assert "--show-completion" in told
    words = {"COMP_WORDS": "conversation-actors d", "COMP_CWORD": "1"}
    completed = run(**words, _CONVERSATION_ACTORS_COMPLETE="complete_bash")
    assert completed.stdout.split() == ["dev", "demo"]


@pytest.mark.parametrize("columns", ["80", "120"])
@pytest.mark.parametrize("command", [command for command in COMMANDS if command != "start"])
def test_help_is_wrapped_once(command: str, columns: str) -> None:
    """By the terminal's width, and not by that of the source as well: a line ends where the next word does not fit."""
    told = run(command, "--help", COLUMNS=columns, TERMINAL_WIDTH=columns).stdout.split("╭")[0]
    lines = [line.rstrip() for line in told.splitlines()]
    for line, following in pairwise(lines):
        # an older typer has no empty line between two paragraphs
        if line.strip() and following.strip() and not line.endswith("."):
            assert len(line) + 1 + len(following.split()[0]) > int(columns) - 2, (line, following)


def test_it_has_one_name_however_it_was_started() -> None:
    """So that what it prints can be pasted."""
    assert " Usage: conversation-actors show [OPTIONS] " in run("show", "--help").stdout


def test_what_was_given_wrongly_ends_with_2(tmp_path: Path) -> None:
    """As with every command: 2 for a mistake in what was given, in one sentence."""
    ran = run("show", "x", CONVERSATION_DURABILITY="disk")
    assert ran.returncode == 2
    assert ran.stderr == (
        "conversation-actors: durability (environment: CONVERSATION_DURABILITY): "
        "must be redis, fsync or replicas=N (N from 1 to 99)\n"
    )


@pytest.mark.parametrize("command", ["show", "where"])
def test_an_id_that_is_none_is_looked_for_nowhere(command: str) -> None:
    """It is a mistake in what was given, whatever there is to look into."""
    ran = run(command, "a\nb", RAY_ADDRESS="127.0.0.1:1", CONVERSATION_REDIS_URL="redis://127.0.0.1:1")
    assert ran.returncode == 2
    assert ran.stderr.startswith("conversation-actors: conversation_id")


def test_a_pipe_that_nobody_reads_is_no_failure() -> None:
    """`conversation-actors --help | true` says nothing more."""
    reader, writer = os.pipe()
    os.close(reader)
    process = subprocess.Popen(
        [sys.executable, "-m", "conversation_actors.cli", "--version"],
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(writer)
    _, told = process.communicate(timeout=60)
    assert told == ""
    assert process.returncode in {
        1,
        cli.EXIT_UNREAD,
    }  # by whom it is noticed first: the library for command lines, or us


def test_a_closed_output_is_no_failure() -> None:
    """`conversation-actors --version >&-` says nothing more, either."""
    command = 'exec "$0" -m conversation_actors.cli --version >&-'
    ran = subprocess.run(
        ["bash", "-c", command, sys.executable], capture_output=True, text=True, timeout=60, check=False
    )
    assert (ran.returncode, ran.stderr) == (0, "")


@pytest.mark.parametrize(
    ("raised", "code", "told"),
    [
        (InvalidInputError("ttl: too short", field="ttl"), 2, "conversation-actors: ttl: too short\n"),
        (CorruptStateError("k: damaged", key="k", position=0), 1, "conversation-actors: k: damaged\n"),
        (KeyboardInterrupt(), 130, ""),
        (BrokenPipeError(), 141, ""),
    ],
)
def test_a_command_ends_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    raised: BaseException,
    code: int,
    told: str,
) -> None:
    """Whatever ends it: an error of ours, Ctrl-C, or nobody who reads."""
    monkeypatch.setattr(cli, "app", Failing(raised))
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == code
    assert capfd.readouterr().err == told
