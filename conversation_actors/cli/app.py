"""The commands and their options. A command imports what it needs when it runs, so that ``--help`` stays quick."""

import asyncio
import inspect
import os
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from conversation_actors.cli.archive import app as archive_app
from conversation_actors.cli.backend import app as backend_app
from conversation_actors.cli.options import Json
from conversation_actors.cli.webhooks import app as webhooks_app
from conversation_actors.errors import ConversationError, InvalidInputError
from conversation_actors.versions import tell_versions

PROGRAM = "conversation-actors"

EXIT_FAILED, EXIT_USAGE = 1, 2
EXIT_INTERRUPTED, EXIT_UNREAD = 130, 141
"""What a shell reports about a program that SIGINT or SIGPIPE has ended."""

app = typer.Typer(
    name=PROGRAM,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
app.add_typer(archive_app)
app.add_typer(webhooks_app)
app.add_typer(backend_app)


def _tell_versions(*, is_wanted: bool) -> None:
    if is_wanted:
        typer.echo("\n".join(tell_versions()))
        raise typer.Exit


@app.callback()
def conversation_actors(
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=lambda value: _tell_versions(is_wanted=value),
            is_eager=True,
            help="Print the versions of this package, of Ray and of Python, and exit.",
        ),
    ] = False,
) -> None:
    """One durable owner per conversation, for voice agents."""


@app.command()
def dev(*, as_json: Json = False) -> None:
    """Start what a conversation needs, and stay in the foreground until Ctrl-C.

    That is a Ray head node, and, unless CONVERSATION_REDIS_URL or REDIS_URL is set (or in .env), a Valkey server
    of our own, whose data stays on disk for the next time. An archiver takes every conversation to an SQLite database
    in the data directory, or to where CONVERSATION_ARCHIVE_URL says, if the extra [bold]archive[/bold] is installed.
    The environment variables that another terminal needs are printed. If one runs already, the command says where,
    and starts nothing.

    Ctrl-C or SIGTERM saves a snapshot of every running conversation and stops what was started; a second
    one stops at once (nothing acknowledged is lost by that either). Exits with 1 if Ray ends by itself.

    Ray asks whoever connects for the token in ~/.ray/auth_token, which is made if it is missing: other users of
    this machine, and other machines, cannot connect without it.

    Example: [bold]conversation-actors dev[/bold]
    """
    from conversation_actors.cli.dev import run  # noqa: PLC0415  # see the module's docstring

    raise typer.Exit(asyncio.run(run(as_json=as_json)))


@app.command()
def stop() -> None:
    """End what [bold]dev[/bold] has started: a running one in order, and what is left of one that was killed.

    Says what it ended. Only what was started on this data directory (CONVERSATION_DATA_DIR) is touched; its data stays.

    Example: [bold]conversation-actors stop[/bold]
    """
    from conversation_actors.cli.stop import run  # noqa: PLC0415  # see the module's docstring

    run()


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": ["-h"]})
def start(context: typer.Context) -> None:
    """Start a Ray node on which a conversation's process starts nine times quicker and takes a third of the memory.

    Takes every option of [bold]ray start[/bold] and does what that does; [bold]--help[/bold] lists them. The node's
    worker processes are forked from one that has imported everything, instead of each importing it again. If that
    is not possible (not Linux, another Ray than the tested one, a runtime environment of its own), they start the
    ordinary way; this command, or conversation_fork_server.log in Ray's log directory, says why.

    A head asks for this user's token, unless RAY_AUTH_MODE says otherwise; a node does as its head does. What keeps a
    node from joining (address, token, versions) is said in one sentence, before Ray tries.

    If CONVERSATION_ARCHIVE_URL is set, a head has an archiver beside it, which is started again if it ends, and ends
    with the head. It logs to conversation_archiver.log in Ray's log directory. With [bold]--no-archiver[/bold] there is
    none.

    Example: [bold]conversation-actors start --head --port=6379[/bold]
    """
    from conversation_actors.cli.beside_head import archiver_beside  # noqa: PLC0415  # see the module's docstring
    from conversation_actors.runtime import start_node  # noqa: PLC0415  # see the module's docstring

    if "--help" in context.args:
        typer.echo(context.get_help())
    with archiver_beside(context.args) as arguments:
        start_node(arguments, program=PROGRAM)


@app.command()
def show(
    conversation: Annotated[str, typer.Argument(metavar="ID", help="The conversation's id.")], *, as_json: Json = False
) -> None:
    """Print a conversation as it is stored: participants, attributes, leases and history.

    Needs the Redis URL that [bold]dev[/bold] prints, and no Ray. Nothing is started, and nothing is changed: the
    conversation is not kept longer for being looked at. An unknown id exits with 1.

    Example: [bold]conversation-actors show support-42[/bold]
    """
    from conversation_actors.cli.show import run  # noqa: PLC0415  # see the module's docstring

    asyncio.run(run(conversation, as_json=as_json))


@app.command()
def where(
    conversation: Annotated[str, typer.Argument(metavar="ID", help="The conversation's id.")],
    *,
    lines: Annotated[int, typer.Option(min=1, max=10_000, help="Log lines to print at most, the newest.")] = 20,
    as_json: Json = False,
) -> None:
    """Print which process owns a conversation, and what its owners have logged, on all nodes of the cluster.

    Starts no owner and changes nothing. Exits with 1 if none runs and no log line is about it.

    Example: [bold]conversation-actors where support-42[/bold]
    """
    from conversation_actors.cli.where import run  # noqa: PLC0415  # see the module's docstring

    raise typer.Exit(asyncio.run(run(conversation, most_lines=lines, as_json=as_json)))


@app.command()
def sessions(
    *,
    conversation: Annotated[
        str | None, typer.Option(metavar="ID", help="Only calls of this conversation.", show_default=False)
    ] = None,
    user: Annotated[
        str | None,
        typer.Option(metavar="IDENTITY", help="Only calls that this participant was in.", show_default=False),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(metavar="WHEN", help="Only calls that began then or later: 2026-11-28T09:00, 24h, 7d."),
    ] = None,
    until: Annotated[str | None, typer.Option(metavar="WHEN", help="Only calls that began before.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Records to print at most, the newest.")] = 20,
    as_json: Json = False,
) -> None:
    """Print the records of calls that are over, the newest first: who, for how long, turns, tools, the end.

    Needs CONVERSATION_ARCHIVE_URL, and neither Redis nor Ray. A call is recorded a few seconds after its end, by an
    archiver.

    Example: [bold]conversation-actors sessions --user alice --since 24h[/bold]
    """
    from conversation_actors.cli.sessions import run  # noqa: PLC0415  # see the module's docstring

    asyncio.run(run(conversation, user, since=since, until=until, limit=limit, as_json=as_json))


@app.command()
def export(
    conversation: Annotated[str | None, typer.Argument(metavar="[ID]", help="The conversation's id.")] = None,
    *,
    to: Annotated[Path, typer.Option(metavar="PATH", help="The file, or the directory, to write.")],
    every: Annotated[bool, typer.Option("--all", help="Export every conversation of the tenant.")] = False,
    chosen: Annotated[
        Literal["jsonl", "chat-context", "markdown"],
        typer.Option(
            "--format",
            help="jsonl: everything, to be imported again. chat-context: what LiveKit's ChatContext.from_dict reads. "
            "markdown: to be read.",
        ),
    ] = "jsonl",
) -> None:
    """Write conversations into files: all that the archive has of them, and what Redis has acknowledged since.

    What still waits in Redis for the archive is archived first. One conversation goes into one file. With
    [bold]--all[/bold], jsonl goes into one file too, and the other formats into a directory with a file for each
    conversation. A file is there when it is whole. The same content gives the same bytes. Needs the archive
    (CONVERSATION_ARCHIVE_URL), Redis, and no Ray.

    Example: [bold]conversation-actors export --all --to conversations.jsonl[/bold]
    """
    from conversation_actors.cli.export import run  # noqa: PLC0415  # see the module's docstring

    typer.echo(asyncio.run(run(conversation, every=every, to=to, chosen=chosen)))


@app.command(name="import")
def import_(
    files: Annotated[
        list[Path] | None, typer.Argument(metavar="[FILE]…", help="What export has written, as jsonl.")
    ] = None,
    *,
    lists: Annotated[
        str | None,
        typer.Option(
            "--from-redis-lists",
            metavar="PATTERN",
            help="Import another program's lists, of elements with role, content and timestamp, from the same Redis. "
            "The conversation's id stands in the place of the *: 'conversation:*:history'.",
        ),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="Go on importing what is added to the lists, until Ctrl-C.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and write nothing.")] = False,
) -> None:
    """Add exported conversations, or another program's lists, to the archive, from which they are opened as any other.

    First everything is checked: counts and digests of files, and that no such conversation is there with other
    content; if there is, nothing is imported. Then each conversation of a file is added in one step, read back and
    compared. An import that was interrupted is repeated as it is: what is there already is passed over. Needs the
    archive (CONVERSATION_ARCHIVE_URL), Redis, and no Ray.

    Lists grow at their ends. How far one is imported is told by the archive itself, so that each element comes once. An
    element that is no message is kept as an item of another kind, and reported with key and index; then the command
    exits with 1. So it does if a list lost elements before they were read, or belongs to a conversation that has been
    opened here.

    Example: [bold]conversation-actors import conversations.jsonl --dry-run[/bold]
    """
    from conversation_actors.cli.importing import from_files, from_lists  # noqa: PLC0415  # see the module's docstring

    if (lists is None) == (not files):
        message = "files: give files, or --from-redis-lists"
        raise InvalidInputError(message, field="files")
    if follow and (lists is None or dry_run):
        message = "follow: goes with --from-redis-lists, and not with --dry-run"
        raise InvalidInputError(message, field="follow")
    if lists is None:
        typer.echo(asyncio.run(from_files(files or [], dry_run=dry_run)))
        return
    told, is_whole = asyncio.run(from_lists(lists, dry_run=dry_run, follow=follow))
    typer.echo(told)
    raise typer.Exit(0 if is_whole else EXIT_FAILED)


@app.command()
def backup(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Where to write it; made if it is missing.")],
) -> None:
    """Copy all conversations of the tenant out of Redis and the archive, while both are at work.

    Each conversation is copied as it was at one moment: its state, what waits for the archive, and what is archived.
    One that begins meanwhile may be left out. No signs of life, keys, tokens or passwords are in a backup; what people
    said is. The backup is there when it is whole, and only this user may read it. Needs the archive
    (CONVERSATION_ARCHIVE_URL), Redis, and no Ray.

    Example: [bold]conversation-actors backup /backups/2026-11-27[/bold]
    """
    from conversation_actors.cli.backup import back_up  # noqa: PLC0415  # see the module's docstring

    typer.echo(asyncio.run(back_up(directory)))


@app.command()
def restore(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="What backup has written.")],
) -> None:
    """Restore a backup into a Redis and an archive that have nothing of the tenant; refuse any others.

    The whole backup is checked first. Conversations go on in the same life at the same position, and are kept in Redis
    for as long as they had left at the backup. Nothing may use either of the two before this has ended; if it was
    interrupted, empty both and begin again.

    Example: [bold]conversation-actors restore /backups/2026-11-27[/bold]
    """
    from conversation_actors.cli.backup import restore as run  # noqa: PLC0415  # see the module's docstring

    typer.echo(asyncio.run(run(directory)))


@app.command()
def demo(
    *,
    transcript: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            readable=True,
            resolve_path=True,
            help="The call to hold (JSON); without it, a call to a lamp shop.",
        ),
    ] = None,
    conversation: Annotated[str, typer.Option(metavar="ID", help="The id to hold it under.")] = "demo",
    pause: Annotated[
        float, typer.Option(min=0.0, max=10.0, metavar="SECONDS", help="Between two turns of the call.")
    ] = 0.05,
    as_json: Json = False,
) -> None:
    """Hold a phone call, kill everything that holds it, and count what was lost. Takes less than a minute.

    Uses servers of its own in a temporary directory, and a stand-in for the language model: no account, no
    network, and no other Ray or Redis of this machine is touched. Everything is stopped and removed at the end, but
    for Ray's token in ~/.ray, which is made if it is missing.

    Exits with 0 only if nothing was lost, nothing is there twice, and the order was kept.

    Example: [bold]conversation-actors demo --pause 0.5[/bold]
    """
    from conversation_actors.cli.demo.start import start  # noqa: PLC0415  # see the module's docstring

    start(transcript=transcript, conversation=conversation, pause=pause, as_json=as_json)


def main() -> None:
    """Run a command. Errors of ours are one sentence on standard error; exit code 2 for a mistake in what was given."""
    _leave_wrapping_to_the_terminal()
    try:
        app(prog_name=PROGRAM)
    except ConversationError as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)  # noqa: T201  # a command line's way to answer
        raise SystemExit(EXIT_USAGE if isinstance(error, InvalidInputError) else EXIT_FAILED) from None
    except KeyboardInterrupt:
        raise SystemExit(EXIT_INTERRUPTED) from None
    except BrokenPipeError:
        _end_unread()
    finally:
        _flush()


def _leave_wrapping_to_the_terminal() -> None:
    """Make each paragraph of a docstring one line; otherwise the help would have the source's line breaks."""
    inner = [one.typer_instance for one in app.registered_groups if one.typer_instance is not None]
    below = [command for one in inner for command in (*one.registered_commands, one.registered_callback)]
    for command in (*app.registered_commands, *below):
        if command is not None:
            paragraphs = inspect.cleandoc(inspect.getdoc(command.callback) or "").split("\n\n")
            command.help = "\n\n".join(" ".join(paragraph.splitlines()) for paragraph in paragraphs)


def _flush() -> None:
    """Write what is still to be written; otherwise Python might complain about it after our last line."""
    if sys.stdout is None:  # the process that started this closed it: nobody reads
        return
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _end_unread()


def _end_unread() -> None:
    """End as every program does whose reader has gone: `show ID | head` is not a failure to report."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    raise SystemExit(EXIT_UNREAD) from None
