"""Adding to the backlogs, on Redis: a conversation is in the listing before anything of it waits."""

import logging
import secrets
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

from conversation_actors.clock import uptime
from conversation_actors.errors import StoreUnavailableError
from conversation_actors.store.backlog import Bounds, Record
from conversation_actors.store.base import Claim
from conversation_actors.store.keys import ConversationKeys, Keys
from conversation_actors.store.script_calls import Argument, ScriptCalls, milliseconds
from conversation_actors.store.scripts import LuaScript, script

logger = logging.getLogger(__name__)

_TRIES = 8
"""How often archivers may take a conversation out of the listing between its entering and its push."""
_MARKS = 10_000
"""Owners whose mark is remembered; who is forgotten enters the listing again."""
_WARNING_SECONDS = 60.0
_STEP_BYTES = 1 << 20
_STEP_ENTRIES = 1000


class UnarchivedListing:
    """The conversations that have a backlog, each with the mark under which it entered last."""

    def __init__(self, calls: ScriptCalls, keys: Keys) -> None:
        """Share the connections of the store."""
        self._calls, self._key = calls, keys.unarchived_index

    async def enter(self, conversation_id: str, after: int = 0) -> int:
        """Enter a conversation, or enter it anew; return its mark, which is later than all before and than `after`."""
        reply = await self._calls.on_index(script("archive_enter"), (self._key,), conversation_id, after)
        return int(reply[1])

    async def leave(self, conversation_id: str, mark: int) -> bool:
        """Take a conversation out, unless it entered anew since it got this mark; tell whether it was there."""
        reply = await self._calls.on_index(script("archive_leave"), (self._key,), conversation_id, mark)
        return bool(reply[0] == b"OK")

    async def members(self) -> list[tuple[str, int]]:
        """Return the conversations with their marks, those that entered first before the others."""
        flat = await self._calls.plainly("list", self._key, ("ZRANGE", self._key, 0, -1, "WITHSCORES"))
        return [(flat[at].decode(), int(float(flat[at + 1]))) for at in range(0, len(flat), 2)]

    async def lacks(self, conversation_ids: Sequence[str]) -> list[str]:
        """Return those that are not in it."""
        if not conversation_ids:
            return []
        marks = await self._calls.plainly("list", self._key, ("ZMSCORE", self._key, *conversation_ids))
        return [one for one, mark in zip(conversation_ids, marks, strict=True) if mark is None]


class Queueing:
    """Runs the scripts that add to a backlog."""

    def __init__(self, calls: ScriptCalls, keys: Keys, bounds: Bounds) -> None:
        """Share the connections of the store."""
        self._calls, self._listing = calls, UnarchivedListing(calls, keys)
        self._bounds = (bounds.size, milliseconds(bounds.age))
        self._marks: OrderedDict[str, int] = OrderedDict()
        self._warned_at: float | None = None

    async def push(
        self,
        name: LuaScript,
        conversation_id: str,
        keys: ConversationKeys,
        *arguments: Argument,
        header: bytes = b"",
        entries: Sequence[bytes] = (),
        pusher: str = "",
        anew: bool = False,
    ) -> list[Any]:
        """Run a script that adds `entries`, or what else it has to add; return its reply.

        The conversation enters the listing first if its `pusher` is not known to have entered it, and whenever the
        script says that this is needed; with `anew` in any case, and then the backlog gets another name.
        """
        # forgotten until it is known what became of the push: a mark is new only once
        mark, is_new = self._marks.pop(pusher, 0), False
        if entries and (anew or not mark):
            mark, is_new = await self._listing.enter(conversation_id), True
        for _ in range(_TRIES):
            named = secrets.token_hex(8) if is_new else ""
            told = (mark, int(is_new), header, named, *self._bounds)
            reply = await self._calls.on_conversation(name, keys, *arguments, *told, *entries, names=keys.with_backlog)
            if reply[0] != b"UNLISTED":
                if pusher and mark and (not is_new or reply[0] == b"OK"):
                    self._remember(pusher, mark)
                self._tell_of_given_up(keys, reply)
                return reply
            mark, is_new = await self._listing.enter(conversation_id, int(reply[1])), True
        message = f"{keys.backlog}: was taken out of the listing each of the {_TRIES} times that it entered"
        raise StoreUnavailableError(message)

    def _remember(self, pusher: str, mark: int) -> None:
        self._marks[pusher] = mark
        if len(self._marks) > _MARKS:
            self._marks.popitem(last=False)

    def _tell_of_given_up(self, keys: ConversationKeys, reply: Sequence[Any]) -> None:
        given_up = reply[1] if reply[0] == b"OK" and len(reply) > 1 else 0
        if not given_up or (self._warned_at is not None and uptime() - self._warned_at < _WARNING_SECONDS):
            return
        self._warned_at = uptime()
        logger.warning(
            "the archive is so far behind that the oldest records are given up; it will have gaps",
            extra={"key": keys.backlog, "records": given_up, "bytes": self._bounds[0]},
        )


@lru_cache(maxsize=1024)
def header_of(claim: Claim) -> bytes:
    """Return what stands before each entry that a claim writes."""
    return Record(claim.life, claim.start, claim.epoch, claim.owner, None).header


def steps(entries: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    """Cut entries into parts that hold up the store's other users for a moment only."""
    step: list[bytes] = []
    size = 0
    for entry in entries:
        size += len(entry)
        if step and (size > _STEP_BYTES or len(step) == _STEP_ENTRIES):
            yield step
            step, size = [], len(entry)
        step.append(entry)
    if step:
        yield step
