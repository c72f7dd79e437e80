"""The worker's command line: ``agent-worker --help``, or ``python -m agent_worker --help``."""

import logging
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from agent_worker import commands
from agent_worker.commands import EXIT_FAILED, TalkCommand, WorkerCommand
from agent_worker.environment import override
from agent_worker.extras import missing_extra
from agent_worker.options import (
    ApiKey,
    ApiSecret,
    Application,
    Drain,
    Entrypoint,
    Level,
    LogLevel,
    Offline,
    Transcript,
    Url,
    Verbose,
    seconds,
)
from conversation_actors.errors import ConversationError, InvalidInputError
from conversation_actors.versions import tell_versions

EXIT_USAGE = 2
EXIT_INTERRUPTED = 130
"""What a shell reports of a program that SIGINT has ended."""
PROGRAM, MODULE = "agent-worker", "python -m agent_worker"

START = (
    "Run a worker for production: a supervisor process that starts it again when it dies. SIGTERM hands its calls over "
    "to other workers."
)
DEV = "Run a worker, and a page in the browser to talk to it."
WORK = (
    "Run a worker without a supervisor: when it is killed, other workers take its calls over once its heartbeats stand "
    "still."
)
WATCH = (
    "Follow agents that die or hang, and take no calls: for agents that are started by LiveKit's own command line "
    "(`python my_agent.py start`). One of these, or of our workers, has to run anywhere on the same Redis. The next "
    "agent is called when a heartbeat has stood still for AGENT_TAKEOVER_VALID_FOR (3 s), and is heard about 4 s after "
    "the death of the one before it."
)
CONSOLE = (
    "Type to the example agent in a terminal, without a LiveKit server and without sound. It needs Ray, Redis and a "
    "model. With --offline it needs no account for a model, and if no Redis is configured, nothing at all: then the "
    "conversation is forgotten when this ends."
)
TALK = "Run the example agent in text mode, speaking the caller's part of a transcript; prints a JSON line per event."

# Plain help: the terminal wraps it, once, and nothing in it is taken for markup.
app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.command(help=START, short_help="Run a worker for production, and its supervisor.")
def start(
    application: Application = None,
    *,
    entrypoint: Entrypoint = None,
    offline: Offline = False,
    transcript: Transcript = None,
    url: Url = None,
    api_key: ApiKey = None,
    api_secret: ApiSecret = None,
    drain_timeout: Drain = None,
    log_level: Level = LogLevel.INFO,
    verbose: Verbose = False,
) -> None:
    """Run a supervisor and its worker."""
    _override(url=url, api_key=api_key, api_secret=api_secret, drain_timeout=drain_timeout)
    command = _worker(application, entrypoint, _level(log_level, verbose=verbose), offline, transcript)
    raise typer.Exit(commands.start(command))


@app.command(help=DEV)
def dev(
    application: Application = None,
    *,
    entrypoint: Entrypoint = None,
    offline: Offline = False,
    transcript: Transcript = None,
    url: Url = None,
    api_key: ApiKey = None,
    api_secret: ApiSecret = None,
    drain_timeout: Drain = None,
    log_level: Level = LogLevel.INFO,
    verbose: Verbose = False,
) -> None:
    """Run a worker and the caller's page."""
    _override(url=url, api_key=api_key, api_secret=api_secret, drain_timeout=drain_timeout)
    command = _worker(
        application, entrypoint, _level(log_level, verbose=verbose, is_production=False), offline, transcript
    )
    raise typer.Exit(commands.dev(command, _print))


@app.command(help=WORK, short_help="Run a worker without a supervisor.")
def work(
    application: Application = None,
    *,
    entrypoint: Entrypoint = None,
    development: Annotated[bool, typer.Option("--development", help="Free ports, no limit on the load.")] = False,
    url: Url = None,
    api_key: ApiKey = None,
    api_secret: ApiSecret = None,
    drain_timeout: Drain = None,
    log_level: Level = LogLevel.INFO,
    verbose: Verbose = False,
) -> None:
    """Run a worker in this process."""
    _override(url=url, api_key=api_key, api_secret=api_secret, drain_timeout=drain_timeout)
    command = _worker(application, entrypoint, _level(log_level, verbose=verbose, is_production=not development))
    raise typer.Exit(commands.work(command, is_development=development))


@app.command(help=WATCH, short_help="Follow agents that die, and take no calls.")
def watch(
    *,
    url: Url = None,
    api_key: ApiKey = None,
    api_secret: ApiSecret = None,
    log_level: Level = LogLevel.INFO,
    verbose: Verbose = False,
) -> None:
    """Follow agents that die anywhere."""
    _override(url=url, api_key=api_key, api_secret=api_secret)
    _level(log_level, verbose=verbose)
    raise typer.Exit(commands.watch())


@app.command(help=CONSOLE, short_help="Type to the example agent in a terminal.")
def console(
    *,
    conversation: Annotated[str, typer.Option(metavar="ID", help="The conversation.")] = "console",
    offline: Annotated[
        bool, typer.Option("--offline", help="A local stand-in for the model; no account needed.")
    ] = False,
    llm_url: Annotated[str | None, typer.Option("--llm-url", metavar="URL", help="OpenAI-compatible base URL.")] = None,
) -> None:
    """Talk in the terminal."""
    if offline and llm_url is not None:
        message = "--llm-url and --offline: give one of them"
        raise InvalidInputError(message, field="offline")
    raise typer.Exit(commands.console(conversation, _print, llm_url=llm_url, offline=offline))


@app.command(help=TALK, short_help="Hold a scripted call in text.")
def talk(
    *,
    conversation: Annotated[str, typer.Option(metavar="ID", help="The conversation to open, or go on with.")],
    transcript: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The call to hold (needed unless --watch).")
    ] = None,
    llm_url: Annotated[
        str | None,
        typer.Option(
            "--llm-url", metavar="URL", help="OpenAI-compatible base URL (default: OPENAI_BASE_URL, or OpenAI)."
        ),
    ] = None,
    from_turn: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="First turn, from 0 (default: where the history ends).")
    ] = None,
    turns: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Stop after so many turns (default: all).")
    ] = None,
    pause: Annotated[timedelta, typer.Option(parser=seconds, metavar="SECONDS", help="Between turns.")] = "0",  # type: ignore[assignment]  # read by `parser`, as what is typed
    caller: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Who calls: noted in the conversation, and welcomed when they call again."),
    ] = None,
    watching: Annotated[
        bool, typer.Option("--watch", help="Do not speak; print items as they arrive, until stopped.")
    ] = False,
) -> None:
    """Hold a call in text."""
    if transcript is None and not watching:
        message = "talk: --transcript is needed, unless --watch is given"
        raise InvalidInputError(message, field="transcript")
    spoken = None if watching else transcript
    raise typer.Exit(commands.talk(TalkCommand(conversation, spoken, llm_url, from_turn, turns, pause, caller)))


def _worker(
    application: str | None,
    entrypoint: str | None,
    log_level: str,
    offline: bool = False,  # noqa: FBT001, FBT002  # as the commands take them
    transcript: Path | None = None,
) -> WorkerCommand:
    if application is not None and entrypoint is not None:
        message = "MODULE and --entrypoint: give one of them"
        raise InvalidInputError(message, field="entrypoint")
    if transcript is not None and not offline:
        message = "--transcript is for --offline"
        raise InvalidInputError(message, field="transcript")
    return WorkerCommand(application, entrypoint, log_level, offline, transcript)


def _level(level: LogLevel, *, verbose: bool, is_production: bool = True) -> str:
    """Log from here on, as much as is wanted; the level's name."""
    from agent_worker.worker.logs import set_up  # noqa: PLC0415  # with the rest

    chosen = LogLevel.DEBUG if verbose else level
    set_up(level=logging.getLevelNamesMapping()[chosen.name], is_production=is_production)
    return chosen.value


def _override(
    *, url: str | None, api_key: str | None, api_secret: str | None, drain_timeout: str | None = None
) -> None:
    """Put what was given before the environment: the worker and its jobs are other processes."""
    from agent_worker.settings import WorkerSettings  # noqa: PLC0415  # needs more than --help does

    given = {
        "LIVEKIT_URL": url,
        "LIVEKIT_API_KEY": api_key,
        "LIVEKIT_API_SECRET": api_secret,
        "AGENT_DRAIN": drain_timeout,
    }
    override({name: value for name, value in given.items() if value is not None})
    if drain_timeout is not None:
        WorkerSettings()


def _print(line: str) -> None:
    print(line, flush=True)  # noqa: T201  # a command line's way to answer


def _tell_versions(*, is_wanted: bool) -> None:
    if is_wanted:
        _print("\n".join(tell_versions("livekit-agents")))
        raise typer.Exit


@app.callback(help="Voice agents with durable conversations.")
def agent_worker(
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=lambda value: _tell_versions(is_wanted=value),
            is_eager=True,
            help="Print the versions of this package, of livekit-agents, Ray and Python, and exit.",
        ),
    ] = False,
) -> None:
    """Do what goes for whatever command follows."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command. Returns the exit code: 0, 1 if it failed, 2 for a mistake in what was given.

    Each command imports what it needs, and where an extra of the package has to bring that, one sentence says so.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        app(args=given, prog_name=_program())
    except SystemExit as ended:
        if not given:  # the help is shown, and nothing was asked for
            return EXIT_USAGE
        return ended.code if isinstance(ended.code, int) else EXIT_FAILED
    except ConversationError as error:
        return _failed(str(error), EXIT_USAGE if isinstance(error, InvalidInputError) else EXIT_FAILED)
    except ImportError as error:
        command = next((one for one in given if not one.startswith("-")), "")
        if (sentence := missing_extra(error, f"{PROGRAM} {command}".rstrip())) is None:
            raise
        return _failed(sentence.removeprefix(f"{PROGRAM} "), EXIT_USAGE)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    return 0


def _program() -> str:
    """Name it as it was called."""
    return MODULE if Path(sys.argv[0]).name in {"__main__.py", "-m"} else PROGRAM


def _failed(sentence: str, code: int) -> int:
    print(f"{PROGRAM}: {sentence}", file=sys.stderr)  # noqa: T201  # a command line's way to answer
    return code
