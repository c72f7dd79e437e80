"""The commands of the archive and their options. A command imports what it needs when it runs."""

import asyncio
from typing import Annotated

import typer

from conversation_actors.cli.options import Json

app = typer.Typer(name="archive", invoke_without_command=True, rich_markup_mode="rich")


@app.callback()
def archive(
    context: typer.Context,
    *,
    once: Annotated[bool, typer.Option("--once", help="Archive what waits now, and exit.")] = False,
    migrate: Annotated[bool, typer.Option("--migrate", help="Bring the tables up to this version first.")] = False,
) -> None:
    """Take what was acknowledged from Redis to the archive's database, until Ctrl-C or SIGTERM.

    Needs CONVERSATION_ARCHIVE_URL and the Redis URL. Any number of these may run: they share the work, and each does
    what another one that died has left. While a server is away, what was acknowledged waits in Redis. A signal lets
    it finish what it has begun. [bold]dev[/bold] and [bold]start --head[/bold] run one.

    Exits with 1 if the tables are missing, older or newer than this version, or a right is lacking.

    Example: [bold]conversation-actors archive --once[/bold]
    """
    if context.invoked_subcommand is not None:
        return
    from conversation_actors.cli.archiving import (  # noqa: PLC0415  # see above
        archive_once,
        archive_until_stopped,
        log_to_stderr,
    )

    log_to_stderr()
    asyncio.run(archive_once(is_to_migrate=migrate) if once else archive_until_stopped(is_to_migrate=migrate))


@app.command()
def migrate() -> None:
    """Make the archive's tables, or bring them up to this version. Needs CONVERSATION_ARCHIVE_URL, and no Redis.

    Tables that are up to date stay as they are, and several of these at once do the work once.

    Example: [bold]conversation-actors archive migrate[/bold]
    """
    from conversation_actors.cli.archiving import migrate as run  # noqa: PLC0415  # see above

    asyncio.run(run())


@app.command()
def status(
    conversation: Annotated[
        str | None,
        typer.Argument(metavar="ID", help="A conversation's id; without it, all of them.", show_default=False),
    ] = None,
    *,
    as_json: Json = False,
) -> None:
    """Print how far the archive is behind, what was given up, and which gaps it has.

    Changes nothing. Exits with 1 if Redis or the database cannot be asked.

    Example: [bold]conversation-actors archive status support-42[/bold]
    """
    from conversation_actors.cli.archive_status import run  # noqa: PLC0415  # see above

    asyncio.run(run(conversation, as_json=as_json))
