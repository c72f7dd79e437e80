"""The worker's command line: ``python -m agent_worker --help``."""

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Self

from conversation_actors.errors import ConversationError, InvalidInputError

if TYPE_CHECKING:
    from agent_worker.development.talk import TalkOptions
    from agent_worker.offline.transcript import Transcript
    from agent_worker.settings import LanguageModelSettings

EXIT_FAILED, EXIT_USAGE = 1, 2


def _count(text: str) -> int:
    number = int(text)
    if number < 0:
        message = "must be zero or more"
        raise argparse.ArgumentTypeError(message)
    return number


def _seconds(text: str) -> timedelta:
    seconds = float(text)
    if not 0.0 <= seconds <= 3600.0:  # noqa: PLR2004  # an hour between two sentences is a mistake
        message = "must be 0 to 3600 seconds"
        raise argparse.ArgumentTypeError(message)
    return timedelta(seconds=seconds)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m agent_worker", description="Voice agents with durable conversations."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, told in {
        "start": "Run a worker for production: a parent process that starts it again when it dies. SIGTERM hands "
        "its calls over to other workers.",
        "dev": "Run a worker, and a page in the browser to talk to it.",
        "work": "Run a worker without a parent: when it is killed, other workers take its calls over by the clock.",
    }.items():
        one = commands.add_parser(name, help=told.split(":")[0].rstrip("."), description=told)
        agent = one.add_mutually_exclusive_group()
        agent.add_argument(
            "application",
            nargs="?",
            metavar="MODULE[:SERVER]",
            help="your own AgentServer or WorkerOptions, as it is: package.module, package.module:attribute, or "
            "path/to/agent.py (default: the example agent)",
        )
        agent.add_argument(
            "--entrypoint",
            metavar="MODULE:FUNCTION",
            help="only a function of yours, `async def function(ctx: JobContext)`, in a server of ours",
        )
        one.add_argument("--verbose", action="store_true", help="log more")
        if name == "work":
            one.add_argument("--development", action="store_true", help="free ports, no limit on the load")
        if name == "dev":
            one.add_argument("--offline", action="store_true", help="local stand-ins for all models; no account needed")
            one.add_argument("--transcript", type=Path, metavar="FILE", help="the call that the stand-ins know")
    watcher = commands.add_parser("watch", help="follow agents that die, and take no calls", description=WATCH)
    watcher.add_argument("--verbose", action="store_true", help="log more")
    _add_console(commands.add_parser("console", help="type to the example agent in a terminal", description=CONSOLE))
    _add_talk(commands.add_parser("talk", help="hold a scripted call in text", description=TALK))
    return parser


WATCH = (
    "Follow agents that die or hang, and take no calls: for agents that are started by LiveKit's own command line "
    "(`python my_agent.py start`). One of these, or of our workers, has to run anywhere on the same Redis. The next "
    "agent is called when a heartbeat has stood still for AGENT_TAKEOVER_VALID_FOR (3 s), and is heard about 4 s after "
    "the death of the one before it."
)
CONSOLE = "Type to the example agent in a terminal. No LiveKit server and no sound; Ray, Redis and a model are needed."
TALK = "Run the example agent in text mode, speaking the caller's part of a transcript; prints a JSON line per event."


def _add_console(one: argparse.ArgumentParser) -> None:
    one.add_argument("--conversation", default="console", metavar="ID", help="the conversation (default: console)")
    one.add_argument("--llm-url", metavar="URL", help="OpenAI-compatible base URL")


def _add_talk(one: argparse.ArgumentParser) -> None:
    one.add_argument("--conversation", required=True, metavar="ID", help="the conversation to open, or go on with")
    one.add_argument("--transcript", type=Path, metavar="FILE", help="the call to hold (needed unless --watch)")
    one.add_argument(
        "--llm-url", metavar="URL", help="OpenAI-compatible base URL (default: OPENAI_BASE_URL, or OpenAI)"
    )
    one.add_argument(
        "--from-turn", type=_count, metavar="N", help="first turn, from 0 (default: where the history ends)"
    )
    one.add_argument("--turns", type=_count, metavar="N", help="stop after so many turns (default: all)")
    one.add_argument(
        "--pause", type=_seconds, default=timedelta(0), metavar="SECONDS", help="between turns (default: 0)"
    )
    one.add_argument("--watch", action="store_true", help="do not speak; print items as they arrive, until stopped")


@dataclass(frozen=True, slots=True)
class _Call:
    """What is to be spoken, by whom."""

    transcript: "Transcript"
    model: "LanguageModelSettings"
    options: "TalkOptions"

    @classmethod
    def of(cls, chosen: argparse.Namespace) -> Self:
        from agent_worker.development.talk import TalkOptions  # noqa: PLC0415  # see main
        from agent_worker.offline.transcript import load  # noqa: PLC0415

        model = _model(chosen)
        options = TalkOptions(first_turn=chosen.from_turn, turns=chosen.turns, pause=chosen.pause)
        return cls(load(chosen.transcript), model, options)


def _model(chosen: argparse.Namespace) -> "LanguageModelSettings":
    from agent_worker.settings import LanguageModelSettings  # noqa: PLC0415  # see main

    model = LanguageModelSettings(**({} if chosen.llm_url is None else {"base_url": chosen.llm_url}))
    model.require_key()
    return model


async def _talk(chosen: argparse.Namespace) -> None:
    from agent_worker.development.talk import Report, talk, watch  # noqa: PLC0415
    from agent_worker.example.pipeline import text_session  # noqa: PLC0415  # see main
    from conversation_actors import ConversationClient, Settings  # noqa: PLC0415

    report = Report(sys.stdout)
    # what was given is checked before anything is connected or opened
    call = None if chosen.watch else _Call.of(chosen)
    settings = Settings()
    report("opening", conversation=chosen.conversation, pid=os.getpid())
    async with ConversationClient(settings) as client:
        conversation = await client.open(chosen.conversation)
        if call is None:
            await watch(conversation, report)
            return
        async with text_session(call.model) as session:
            await talk(conversation, session, call.transcript, call.options, report)


async def _talk_until_stopped(chosen: argparse.Namespace) -> None:
    """End in order on SIGTERM as on SIGINT: flush what was recorded, close the client."""
    from agent_worker.development.talk import Report  # noqa: PLC0415  # see main

    work = asyncio.ensure_future(_talk(chosen))
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, work.cancel)
    try:
        await work
    except asyncio.CancelledError:
        Report(sys.stdout)("stopped")


def _console(chosen: argparse.Namespace) -> int:
    from agent_worker.development.console import console  # noqa: PLC0415  # see main

    try:
        asyncio.run(console(chosen.conversation, _model(chosen), _print))
    except KeyboardInterrupt:
        _print("")
    return 0


def _work(chosen: argparse.Namespace) -> int:
    from agent_worker.worker.application import entrypoint_named, load_server  # noqa: PLC0415  # see main
    from agent_worker.worker.server import PRELOADED, WorkerOptions, run_worker  # noqa: PLC0415

    # first of all: the application may read a file of variables when it is imported
    application = None if chosen.application is None else load_server(chosen.application, preload=PRELOADED)
    entrypoint = None if chosen.entrypoint is None else entrypoint_named(chosen.entrypoint)
    options = WorkerOptions(is_development=chosen.development, application=application, entrypoint=entrypoint)
    asyncio.run(run_worker(options))
    return 0


def _watch(_chosen: argparse.Namespace) -> int:
    from agent_worker.worker.server import WorkerOptions, run_watcher  # noqa: PLC0415  # see main

    asyncio.run(run_watcher(WorkerOptions()))
    return 0


def _start(chosen: argparse.Namespace) -> int:
    from agent_worker.worker.parent import Parent, instance_name  # noqa: PLC0415  # see main

    return asyncio.run(Parent(_worker_arguments(chosen), instance_name()).run())


def _dev(chosen: argparse.Namespace) -> int:
    from agent_worker.development.develop import develop  # noqa: PLC0415  # see main
    from agent_worker.offline.transcript import bundled, load  # noqa: PLC0415
    from agent_worker.worker.parent import instance_name  # noqa: PLC0415

    offline = (chosen.transcript or bundled()) if chosen.offline else None
    if offline is not None:
        load(offline)
    arguments = [*_worker_arguments(chosen), "--development"]
    return asyncio.run(develop(arguments, instance_name(), offline=offline, write=_print))


def _worker_arguments(chosen: argparse.Namespace) -> list[str]:
    arguments = ["work"]
    if chosen.application is not None:
        arguments += [chosen.application]
    if chosen.entrypoint is not None:
        arguments += ["--entrypoint", chosen.entrypoint]
    return [*arguments, "--verbose"] if chosen.verbose else arguments


def _print(line: str) -> None:
    print(line, flush=True)  # noqa: T201  # a command line's way to answer


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command. Returns the exit code: 0, 1 if it failed, 2 for a mistake in what was given.

    Each command imports what it needs: the parent of a worker stays small.
    """
    parser = _parser()
    chosen = parser.parse_args(arguments)
    if chosen.command == "talk" and not chosen.watch and chosen.transcript is None:
        parser.error("talk: --transcript is needed, unless --watch is given")
    if chosen.command == "dev" and chosen.transcript is not None and not chosen.offline:
        parser.error("dev: --transcript is for --offline")
    try:
        return _run(chosen)
    except InvalidInputError as error:
        print(error, file=sys.stderr)  # noqa: T201  # a command line's way to answer
        return EXIT_USAGE
    except ConversationError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)  # noqa: T201  # as above
        return EXIT_FAILED


def _run(chosen: argparse.Namespace) -> int:
    from agent_worker.worker.logs import set_up  # noqa: PLC0415  # with the rest

    if chosen.command == "talk":
        return _run_talk(chosen)
    if chosen.command == "console":
        return _console(chosen)
    is_development = chosen.command == "dev" or getattr(chosen, "development", False)
    set_up(verbose=chosen.verbose, is_production=not is_development)
    return {"work": _work, "start": _start, "dev": _dev, "watch": _watch}[chosen.command](chosen)


def _run_talk(chosen: argparse.Namespace) -> int:
    from livekit.agents import APIError  # noqa: PLC0415  # takes two seconds

    try:
        asyncio.run(_talk_until_stopped(chosen))
    except APIError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)  # noqa: T201  # a command line's way to answer
        return EXIT_FAILED
    return 0
