"""The worker's command line: ``python -m agent_worker talk --help``."""

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Self

from livekit.agents import APIError

from agent_worker.session import text_session
from agent_worker.settings import LanguageModelSettings
from agent_worker.talk import Report, TalkOptions, talk, watch
from agent_worker.transcript import Transcript, load
from conversation_actors import ConversationClient, Settings
from conversation_actors.errors import ConversationError, InvalidInputError

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
    told = (
        "Run the example agent in text mode, speaking the caller's part of a transcript; prints a JSON line per event."
    )
    one = commands.add_parser("talk", help="hold a scripted call in text", description=told)
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
    return parser


async def _run(chosen: argparse.Namespace) -> None:
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


@dataclass(frozen=True, slots=True)
class _Call:
    """What is to be spoken, by whom."""

    transcript: Transcript
    model: LanguageModelSettings
    options: TalkOptions

    @classmethod
    def of(cls, chosen: argparse.Namespace) -> Self:
        model = LanguageModelSettings(**({} if chosen.llm_url is None else {"base_url": chosen.llm_url}))
        model.require_key()
        options = TalkOptions(first_turn=chosen.from_turn, turns=chosen.turns, pause=chosen.pause)
        return cls(load(chosen.transcript), model, options)


async def _until_stopped(chosen: argparse.Namespace) -> None:
    """End in order on SIGTERM as on SIGINT: flush what was recorded, close the client."""
    work = asyncio.ensure_future(_run(chosen))
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, work.cancel)
    try:
        await work
    except asyncio.CancelledError:
        Report(sys.stdout)("stopped")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command. Returns the exit code: 0, 1 if it failed, 2 for a mistake in what was given."""
    parser = _parser()
    chosen = parser.parse_args(arguments)
    if not chosen.watch and chosen.transcript is None:
        parser.error("talk: --transcript is needed, unless --watch is given")
    try:
        asyncio.run(_until_stopped(chosen))
    except InvalidInputError as error:
        print(error, file=sys.stderr)  # noqa: T201  # a command line's way to answer
        return EXIT_USAGE
    except (ConversationError, APIError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)  # noqa: T201  # as above
        return EXIT_FAILED
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
