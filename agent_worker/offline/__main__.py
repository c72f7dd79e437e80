"""The offline server's command line: ``python -m agent_worker.offline --help``."""

import argparse
import asyncio
import json
import os
import shlex
import signal
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from agent_worker.environment import offline_environment
from agent_worker.extras import missing_extra
from conversation_actors.errors import InvalidInputError

if TYPE_CHECKING:
    from agent_worker.offline.script import Script
    from agent_worker.offline.server import OfflineServer

PROGRAM = "python -m agent_worker.offline"
_ABOUT = (
    "Stand-ins for OpenAI and Deepgram on this machine: they need no account, hold no model, and know a few sentences. "
    "Prints the variables that point an agent at them, and runs until Ctrl-C."
)


async def _serve(script: "Script", chosen: argparse.Namespace) -> None:
    from agent_worker.offline.server import OfflineServer  # noqa: PLC0415  # see main

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    pause = timedelta(seconds=chosen.chunk_pause)
    async with OfflineServer(script, port=chosen.port, chunk_pause=pause) as server:
        if chosen.until_input_ends:
            loop.add_reader(sys.stdin.fileno(), _stop_at_end, sys.stdin.fileno(), stop)
        _tell(server, as_json=chosen.json)
        await stop.wait()


def _stop_at_end(descriptor: int, stop: asyncio.Event) -> None:
    """Set `stop` if the other end of standard input is closed, because the process that started this one is gone."""
    if not os.read(descriptor, 4096):
        asyncio.get_running_loop().remove_reader(descriptor)
        stop.set()


def _tell(server: "OfflineServer", *, as_json: bool) -> None:
    if as_json:
        told = {"base_url": server.base_url, "deepgram_url": server.deepgram_url, "pid": os.getpid()}
        print(json.dumps(told), flush=True)  # noqa: T201  # the interface
        return
    variables = offline_environment(server.base_url, server.deepgram_url)
    exported = " ".join(f"{name}={shlex.quote(value)}" for name, value in variables.items())
    print("The stand-ins for OpenAI and Deepgram run; they need no account. In the terminal of the agent:")  # noqa: T201
    print(f"export {exported}")  # noqa: T201  # as above
    print("Ctrl-C ends them.", flush=True)  # noqa: T201  # as above


def _script(transcript: Path | None) -> "Script":
    """Return a script that follows the given transcript to the letter.

    Without one, return a script that follows the bundled transcript and makes small talk if the caller leaves it.
    """
    from agent_worker.offline.script import TranscriptScript  # noqa: PLC0415  # see main
    from agent_worker.offline.small_talk import FirstCallScript  # noqa: PLC0415
    from agent_worker.offline.transcript import bundled, load  # noqa: PLC0415

    return FirstCallScript(load(bundled())) if transcript is None else TranscriptScript(load(transcript))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=PROGRAM, description=_ABOUT)
    parser.add_argument(
        "--transcript",
        type=Path,
        metavar="FILE",
        help="a call (JSON) to follow to the letter; without it, one is there, and other words are answered too",
    )
    parser.add_argument("--port", type=int, default=0, help="0 (default): a free one")
    parser.add_argument("--chunk-pause", type=float, default=0.0, metavar="SECONDS", help="between streamed chunks")
    parser.add_argument("--json", action="store_true", help="print the addresses as one line of JSON instead")
    parser.add_argument("--until-input-ends", action="store_true", help=argparse.SUPPRESS)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the server until SIGTERM or SIGINT, and return the exit code.

    The code is 2 for a bad transcript, a port that is taken or a missing extra of the package. Modules that need an
    extra are imported late, so that one sentence can say which extra is missing.
    """
    parser = _parser()
    chosen = parser.parse_args(arguments)
    if not 0.0 <= chosen.chunk_pause < float("inf"):
        parser.error("--chunk-pause: must be zero or more seconds")
    try:
        asyncio.run(_serve(_script(chosen.transcript), chosen))
    except ImportError as error:
        if (sentence := missing_extra(error, PROGRAM)) is None:
            raise
        print(sentence, file=sys.stderr)  # noqa: T201  # a command line's way to answer
        return 2
    except (InvalidInputError, OSError, OverflowError) as error:
        print(error, file=sys.stderr)  # noqa: T201  # as above
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
