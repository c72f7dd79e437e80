"""The process that runs the demo; `conversation_actors.cli.demo.start` starts it, and passes the options."""

import asyncio
import io
import json
import logging
import os
import signal
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from conversation_actors.cli.demo.narration import Narration
from conversation_actors.cli.demo.performer import DemoFailedError
from conversation_actors.cli.demo.stage import Stage
from conversation_actors.cli.demo.story import DemoOutcome, Story
from conversation_actors.errors import ConversationError

EXIT_INTERRUPTED = 130
PLAIN_WIDTH = 100


async def _play(options: dict[str, Any], narration: Narration) -> DemoOutcome:
    narration.step(
        "1. A stage: Redis, Ray, and a stand-in for the language model, in a directory of their own.",
        "Nothing else on this machine is touched, and all of it goes away at the end.",
    )
    narration.busy("starting Redis, Ray and the language model")
    transcript = Path(options["transcript"])
    async with Stage(transcript) as stage:
        story = Story(stage, narration, options["conversation"], transcript, options["pause"])
        return await story.tell()


async def _interruptible(options: dict[str, Any], narration: Narration) -> DemoOutcome:
    """Play the demo. SIGINT and SIGTERM end it in order: what was started is killed and removed."""
    work = asyncio.ensure_future(_play(options, narration))
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, work.cancel)
    return await work


def main(arguments: list[str]) -> int:
    """Run the demo, and return the exit code.

    It is 0 if every promise was kept, 1 if not or if the demo failed, and 130 if it was interrupted.
    """
    logging.getLogger("ray").setLevel(logging.ERROR)
    options = json.loads(arguments[0])
    console = Console(file=sys.stdout, highlight=False, quiet=options["as_json"])
    if not console.is_terminal:
        console = Console(file=sys.stdout, highlight=False, quiet=options["as_json"], width=PLAIN_WIDTH)
    narration = Narration(console)
    started = time.monotonic()
    # Ray reports, on stdout or stderr, what is killed here on purpose; that is shown only if the demo fails
    noise = io.StringIO()
    try:
        with redirect_stdout(noise), redirect_stderr(noise):
            outcome = asyncio.run(_interruptible(options, narration))
    except asyncio.CancelledError:
        narration.stop()
        print("interrupted; everything was stopped", file=sys.stderr)  # noqa: T201  # a command line's way to answer
        return EXIT_INTERRUPTED
    except (ConversationError, DemoFailedError) as error:
        narration.stop()
        _tell_failure(error, narration.current, noise.getvalue().splitlines(), as_json=options["as_json"])
        return 1
    seconds = time.monotonic() - started
    narration.table(outcome.kills, outcome.verdict, seconds)
    if outcome.record is not None:
        narration.record(outcome.record)
    if options["as_json"]:
        _print_json({**_document(outcome), "conversation": options["conversation"], "seconds": round(seconds, 1)})
    return exit_code(outcome)


def exit_code(outcome: DemoOutcome) -> int:
    """Return 0 if every promise was kept, 1 otherwise."""
    return 0 if outcome.verdict.passed else 1


def _document(outcome: DemoOutcome) -> dict[str, Any]:
    record = None if outcome.record is None else outcome.record.to_dict()
    verdict = outcome.verdict
    return {"passed": verdict.passed, "kills": outcome.kills, "items": verdict.document(), "session": record}


def _tell_failure(error: Exception, step: str, noise: list[str], *, as_json: bool) -> None:
    own = [] if not isinstance(error, DemoFailedError) else error.stderr
    stderr = own or noise[-12:]
    if as_json:
        _print_json({"passed": False, "failed_step": step, "reason": str(error), "stderr": stderr})
        return
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    console.print(Text(f"\nThe demo failed in step {step}\n{error}", style="bold red"))
    for line in stderr:
        console.print(Text(f"  {line}", style="dim"))


def _print_json(document: dict[str, Any]) -> None:
    print(json.dumps(document, ensure_ascii=False))  # noqa: T201  # the interface


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    # Ray's exit handlers would spend seconds on a goodbye to the cluster that is gone
    os._exit(code)
