"""The commands of webhooks and their options. A command imports what it needs when it runs."""

import asyncio
from typing import Annotated

import typer

from conversation_actors.cli.options import Json

app = typer.Typer(name="webhooks", invoke_without_command=True, rich_markup_mode="rich")

_Destination = Annotated[
    str | None,
    typer.Option(
        "--destination", metavar="NAME", help="One only: an endpoint (`default` is the one by URL), or `backend`."
    ),
]


@app.callback()
def webhooks(context: typer.Context) -> None:
    """Send what happens in calls to CONVERSATION_WEBHOOK_… and CONVERSATION_BACKEND_URL, until Ctrl-C or SIGTERM.

    Needs CONVERSATION_ARCHIVE_URL, and no Redis. Any number of these may run: they share the work, and each does what
    another one that died has left. [bold]archive[/bold], [bold]dev[/bold] and [bold]start --head[/bold] send too.

    Example: [bold]conversation-actors webhooks[/bold]
    """
    if context.invoked_subcommand is not None:
        return
    from conversation_actors.cli.archiving import log_to_stderr  # noqa: PLC0415  # see above
    from conversation_actors.cli.delivering import deliver_until_stopped  # noqa: PLC0415  # see above

    log_to_stderr()
    asyncio.run(deliver_until_stopped())


@app.command()
def status(*, as_json: Json = False) -> None:
    """Print what each endpoint and the back end has not been told yet, why not, and how many dead letters there are.

    Changes nothing. Exits with 1 if the database cannot be asked.

    Example: [bold]conversation-actors webhooks status[/bold]
    """
    from conversation_actors.cli.delivering import tell_status  # noqa: PLC0415  # see above

    asyncio.run(tell_status(as_json=as_json))


@app.command()
def replay(
    *,
    dead: Annotated[bool, typer.Option("--dead", help="What became a dead letter.")] = False,
    since: Annotated[
        str | None, typer.Option(metavar="TIME", help="What happened since then: 2026-11-28, 2026-11-28T09:30+01:00.")
    ] = None,
    conversation: Annotated[str | None, typer.Option(metavar="ID", help="What happened in this conversation.")] = None,
    destination: _Destination = None,
) -> None:
    """Send once more what was sent already, as far as the outbox has it; with several options, what all of them choose.

    It has the same id as before. What has not been sent yet is sent in its turn.

    Example: [bold]conversation-actors webhooks replay --dead[/bold]
    """
    from conversation_actors.cli.delivering import replay as run  # noqa: PLC0415  # see above

    asyncio.run(run(only_dead=dead, since=since, conversation=conversation, destination=destination))


@app.command()
def forget(
    destination: Annotated[str, typer.Argument(metavar="NAME", help="The endpoint's name, or `backend`.")],
) -> None:
    """Forget an endpoint, or the back end, that is not in the settings any more, so that nothing is kept for it.

    Example: [bold]conversation-actors webhooks forget crm[/bold]
    """
    from conversation_actors.cli.delivering import forget as run  # noqa: PLC0415  # see above

    asyncio.run(run(destination))
