"""Requests and their replies as rows: what nearly every message on a line is about.

An append's items are packed as the rows that they are. All other commands travel by name.
"""

from collections.abc import Sequence
from typing import Any

from conversation_actors.items import StoredItem
from conversation_actors.line.fields import (
    bounded,
    list_of,
    read_count,
    read_flag,
    read_integer,
    read_number,
    read_text,
    read_texts,
    refuse,
    row_of,
)
from conversation_actors.line.records import (
    COMMANDS,
    RESULTS,
    pack_error,
    pack_named,
    read_error,
    read_named,
)
from conversation_actors.protocol import Done, Echo, Executed, Reply, Request, Seen, Turn
from conversation_actors.state import AppendItems, Command, Guard


def pack_requests(requests: Sequence[Request]) -> list[tuple[Any, ...]]:
    """Return requests as rows."""
    return [
        (
            request.request_id,
            # A name comes first where it is not an append's items.
            bounded(command.items)
            if type(command := request.command) is AppendItems
            else pack_named(command, COMMANDS),
            request.lease,
            request.is_group,
            request.seen,
            request.digest,
        )
        for request in bounded(requests)
    ]


def read_requests(given: Any) -> list[Request]:
    """Return the requests of what `pack_requests` made. Raises `FrameError` for anything else, as all of these do."""
    return [_request(row) for row in list_of(given)]


def _request(row: Any) -> Request:
    request_id, command, lease, is_group, seen, digest = row_of(row, 6)
    return Request(
        read_text(request_id),
        _command(command),
        None if lease is None else _guard(lease),
        read_flag(is_group),
        None if seen is None else read_seen(seen),
        None if digest is None else read_text(digest),
    )


def _command(given: Any) -> Command:
    rows = list_of(given)
    if rows and type(rows[0]) is str:
        command: Command = read_named(rows, COMMANDS)
        return command
    return AppendItems(tuple([_item(row) for row in rows]))


def _item(row: Any) -> StoredItem:
    item = StoredItem(*row_of(row, 5))
    # One comparison for all of them: a call for each would cost more than all else here.
    identity, kind, role, call_id, data = item
    if not (str is type(identity) is type(kind) is type(role) is type(call_id) and type(data) is bytes):
        refuse("an item", row)
    return item


def _guard(given: Any) -> Guard:
    name, token, holder, life = row_of(given, 4)
    return Guard(read_text(name), read_integer(token), read_text(holder), read_text(life))


def read_seen(given: Any) -> Seen:
    """Return the history that a reader's position belongs to."""
    life, owner = row_of(given, 2)
    return Seen(read_text(life), None if owner is None else read_text(owner))


def read_turn(given: Any) -> Turn:
    """Return the place of a batch among those of its sender."""
    sender, number, after = row_of(given, 3)
    return Turn(read_text(sender), read_count(number), read_count(after))


def pack_executed(executed: Executed) -> tuple[Any, ...]:
    """Return replies, entries and the owner."""
    for entry in bounded(executed.entries):
        if type(entry) is Echo:
            bounded(entry.evicted)
    return [_packed(reply) for reply in bounded(executed.replies)], executed.entries, executed.owner


def _packed(reply: Reply) -> tuple[Any, ...]:
    """Return a position, with the result of the command behind it if there is one; or an error, whose name is first."""
    if isinstance(reply, Done):
        if reply.result is None:
            return reply.seq, reply.epoch
        return reply.seq, reply.epoch, pack_named(reply.result, RESULTS)
    return pack_error(reply)


def read_executed(replies: Any, entries: Any, owner: Any) -> Executed:
    """Return the answer of what `pack_executed` made."""
    return Executed(
        tuple([_reply(row) for row in list_of(replies)]),
        tuple([entry if type(entry) is bytes else _echo(entry) for entry in list_of(entries)]),
        read_text(owner),
    )


def _reply(row: Any) -> Reply:
    parts = list_of(row)
    if parts and type(parts[0]) is str:
        return read_error(parts)
    if len(parts) == 2:  # noqa: PLR2004  # a position alone
        return Done(read_count(parts[0]), read_count(parts[1]))
    seq, epoch, result = row_of(parts, 3)
    return Done(read_count(seq), read_count(epoch), read_named(result, RESULTS))


def _echo(row: Any) -> Echo:
    seq, epoch, at, appended, evicted = row_of(row, 5)
    return Echo(
        read_count(seq),
        read_count(epoch),
        read_number(at),
        None if appended is None else read_count(appended),
        read_texts(evicted),
    )
