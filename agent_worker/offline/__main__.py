"""The offline server's command line: ``python -m agent_worker.offline --help``."""

import argparse
import asyncio
import json
import os
import signal
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from agent_worker.offline.script import Script, TranscriptScript
from agent_worker.offline.server import OfflineServer
from agent_worker.offline.transcript import load
from conversation_actors.errors import InvalidInputError


async def _serve(script: Script, port: int, chunk_pause: timedelta) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with OfflineServer(script, port=port, chunk_pause=chunk_pause) as server:
        told = {"base_url": server.base_url, "deepgram_url": server.deepgram_url, "pid": os.getpid()}
        print(json.dumps(told), flush=True)  # noqa: T201  # the interface
        await stop.wait()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the server until SIGTERM or SIGINT. Returns the exit code; 2 for a bad transcript."""
    parser = argparse.ArgumentParser(
        prog="python -m agent_worker.offline", description="An offline stand-in for OpenAI and Deepgram."
    )
    parser.add_argument("--transcript", type=Path, required=True, help="the call to follow (JSON)")
    parser.add_argument("--port", type=int, default=0, help="0 (default): a free one")
    parser.add_argument("--chunk-pause", type=float, default=0.0, metavar="SECONDS", help="between streamed chunks")
    chosen = parser.parse_args(arguments)
    if not 0.0 <= chosen.chunk_pause < float("inf"):
        parser.error("--chunk-pause: must be zero or more seconds")
    try:
        script = TranscriptScript(load(chosen.transcript))
        asyncio.run(_serve(script, chosen.port, timedelta(seconds=chosen.chunk_pause)))
    except (InvalidInputError, OSError, OverflowError) as error:
        print(error, file=sys.stderr)  # noqa: T201  # a command line's way to answer
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
