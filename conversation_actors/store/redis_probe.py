"""Every script of a conversation run once, on a conversation that no id can name: what cannot work is found at once."""

import secrets

from conversation_actors.store.keys import Keys
from conversation_actors.store.redis_backlog import RedisBacklog
from conversation_actors.store.redis_queueing import UnarchivedListing
from conversation_actors.store.script_calls import Argument, ScriptCalls
from conversation_actors.store.scripts import SCHEMA, conversation_script

PROBE_TTL_MS = 10_000
_NOTHING = ("", "", "", "")
_NEVER = 0


async def probe_conversation(calls: ScriptCalls, keys: Keys, backlog: RedisBacklog | None) -> None:
    """Run them; with a `backlog`, also those that add to it, and those of archivers. All is gone within seconds."""
    probe = keys.tagged(f"%check-{secrets.token_hex(8)}")
    listing, member = UnarchivedListing(calls, keys), f"%check-{secrets.token_hex(8)}"
    names: tuple[str, ...] = probe.as_tuple()
    push: tuple[Argument, ...] = ()
    mark = _NEVER
    if backlog is not None:
        names, mark = probe.with_backlog, await listing.enter(member)
        push = (mark, 1, b"[]\n", "check", 1, PROBE_TTL_MS)

    async def run(name: str, *arguments: Argument) -> None:
        await calls.on_conversation(conversation_script(name), probe, *arguments, names=names)

    place = ("check", 1, "check")
    ttls = (PROBE_TTL_MS, PROBE_TTL_MS)
    await run("activate", "check", 1, PROBE_TTL_MS, SCHEMA)
    await run("append", *place, 0, *ttls, "[]", *push, b"check")
    await run("save_snapshot", *place, 1, *ttls, "[]", b"check", SCHEMA, 0, 1, "[]", 0, *_NOTHING)
    await run("keep", PROBE_TTL_MS)
    if push:
        await run("archive_requeue", *place, *_NOTHING, *push, b"check")
    await run("delete", PROBE_TTL_MS, SCHEMA, *push)
    if backlog is not None:
        await run("revive", *place, 0, 0, b"", "[]", "[]", *ttls, SCHEMA)
        await backlog.check(probe, mark)
        await listing.leave(member, mark)
