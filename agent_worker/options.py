"""What may be given on the worker's command line, and how it is read."""

from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class LogLevel(StrEnum):
    """How much is logged, by the names of livekit-agents."""

    DEBUG = "debug"
    INFO = "info"
    WARN = "warn"
    ERROR = "error"
    CRITICAL = "critical"


def seconds(text: str) -> timedelta:
    """Read a pause between two turns. Raises `typer.BadParameter`."""
    given = float(text)
    if not 0.0 <= given <= 3600.0:  # noqa: PLR2004  # an hour between two sentences is a mistake
        message = "must be 0 to 3600 seconds"
        raise typer.BadParameter(message)
    return timedelta(seconds=given)


Application = Annotated[
    str | None,
    typer.Argument(
        metavar="MODULE[:SERVER]",
        show_default=False,
        help="Your own AgentServer or WorkerOptions, as it is: package.module, package.module:attribute, or "
        "path/to/agent.py (default: the example agent).",
    ),
]
Entrypoint = Annotated[
    str | None,
    typer.Option(
        metavar="MODULE:FUNCTION",
        help="Only a function of yours, `async def function(ctx: JobContext)`, in a server of ours.",
    ),
]
Offline = Annotated[bool, typer.Option("--offline", help="Local stand-ins for all models; no account needed.")]
Transcript = Annotated[
    Path | None, typer.Option(metavar="FILE", help="The call that the stand-ins follow, and nothing else.")
]
Url = Annotated[str | None, typer.Option("--url", metavar="URL", help="LiveKit's server, instead of LIVEKIT_URL.")]
ApiKey = Annotated[str | None, typer.Option("--api-key", metavar="KEY", help="Instead of LIVEKIT_API_KEY.")]
ApiSecret = Annotated[
    str | None,
    typer.Option(
        "--api-secret",
        metavar="SECRET",
        help="Instead of LIVEKIT_API_SECRET. Whoever may list processes can read it here: prefer the variable.",
    ),
]
Level = Annotated[LogLevel, typer.Option("--log-level", case_sensitive=False, help="How much is logged.")]
Verbose = Annotated[bool, typer.Option("--verbose", help="The same as --log-level debug.")]
Drain = Annotated[
    str | None,
    typer.Option(
        "--drain-timeout",
        metavar="SECONDS",
        help="How long calls that no other worker takes may go on after SIGTERM, instead of AGENT_DRAIN.",
    ),
]
