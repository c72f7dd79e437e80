"""A back end of your own, in one file: it keeps what calls send to it in a SQLite file, and answers what they ask.

Start it with `python examples/backend/server.py`, and the programs that talk to it as README.md beside it says. Kill it
at any time, and empty Redis meanwhile: nothing that it answered with 2xx is lost, and the next call begins with it.
"""

import argparse
import asyncio
import hmac
import json
import os
import re
import signal
import sqlite3
from collections.abc import Awaitable, Callable, Mapping
from contextlib import closing
from typing import Any, NamedTuple

from aiohttp import web

MOST_BYTES = 4 << 20
MOST_MESSAGES = 10_000
CALLS_TOLD = 3
SCHEMA = """
PRAGMA journal_mode = WAL;
PRAGMA synchronous = FULL;
PRAGMA secure_delete = ON;
PRAGMA foreign_keys = ON;
CREATE TABLE IF NOT EXISTS taken (
    tenant TEXT NOT NULL, conversation_id TEXT NOT NULL, key TEXT NOT NULL,
    life TEXT NOT NULL, at TEXT NOT NULL,
    PRIMARY KEY (tenant, conversation_id, key)
);
CREATE TABLE IF NOT EXISTS messages (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant TEXT NOT NULL, conversation_id TEXT NOT NULL, id TEXT NOT NULL,
    life TEXT NOT NULL, at TEXT NOT NULL, body TEXT NOT NULL,
    UNIQUE (tenant, conversation_id, id)
);
CREATE TABLE IF NOT EXISTS happenings (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant TEXT NOT NULL, conversation_id TEXT NOT NULL, call_id TEXT,
    life TEXT NOT NULL, at TEXT NOT NULL,
    type TEXT NOT NULL, body TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS happenings_of ON happenings (tenant, conversation_id);
CREATE TABLE IF NOT EXISTS callers (
    tenant TEXT NOT NULL, identity TEXT NOT NULL,
    number INTEGER NOT NULL REFERENCES happenings (number) ON DELETE CASCADE,
    PRIMARY KEY (tenant, identity, number)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS callers_in ON callers (number);
CREATE TABLE IF NOT EXISTS deleted (
    tenant TEXT NOT NULL, conversation_id TEXT NOT NULL, life TEXT NOT NULL,
    PRIMARY KEY (tenant, conversation_id, life)
);
CREATE TABLE IF NOT EXISTS deletions (
    tenant TEXT NOT NULL, conversation_id TEXT NOT NULL, before TEXT NOT NULL,
    PRIMARY KEY (tenant, conversation_id)
);
"""
Body = dict[str, Any]


class Whose(NamedTuple):
    """A conversation: its id is unique within its tenant only."""

    tenant: str
    conversation_id: str


class Records:
    """What is kept. Each method is one transaction: what it has returned from is on the disk."""

    def __init__(self, path: str) -> None:
        self._database = sqlite3.connect(path)
        self._database.executescript(SCHEMA)

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def take(self, key: str, body: Body) -> None:
        """Keep what has happened, unless it is known already, or of a conversation that was deleted meanwhile.

        A delivery comes again if our answer was lost, and a replay may bring an old one at any time. The key is kept in
        the same transaction as what it stands for: so each counts once, also if this program is killed in between.
        """
        whose, life, at = Whose(body["tenant"], body["conversation_id"]), body["life"], body["at"]
        with self._database as database:
            if self._is_late(whose, life, at):
                return
            news = database.execute("INSERT OR IGNORE INTO taken VALUES (?, ?, ?, ?, ?)", (*whose, key, life, at))
            if not news.rowcount:
                return
            match body["type"]:
                case "message.stored":
                    self._store(whose, body)
                case "messages.removed":
                    self._remove(whose, body["ids"])
                case kind:
                    number = database.execute(
                        "INSERT INTO happenings (tenant, conversation_id, call_id, life, at, type, body)"
                        " VALUES (?, ?, ?, ?, ?, ?, ?)",
                        (*whose, body["call_id"], life, at, kind, written(body)),
                    ).lastrowid
                    if kind == "session.recorded":
                        database.executemany(
                            "INSERT OR IGNORE INTO callers VALUES (?, ?, ?)",
                            [(whose.tenant, one["identity"], number) for one in body["participants"]],
                        )

    def _is_late(self, whose: Whose, life: str, at: str) -> bool:
        """Tell whether something is of a conversation that has been deleted, and not of one that began anew since.

        By its life, if the deletion has named that; else by the time, for which clocks must be set.
        """
        query = (
            "SELECT EXISTS (SELECT 1 FROM deleted WHERE (tenant, conversation_id, life) = (?, ?, ?))"
            " OR EXISTS (SELECT 1 FROM deletions WHERE (tenant, conversation_id) = (?, ?) AND before >= ?)"
        )
        return bool(self._database.execute(query, (*whose, life, *whose, at)).fetchone()[0])

    def _store(self, whose: Whose, told: Body) -> None:
        """Keep a message behind the others; one that has changed keeps its place."""
        message = told["message"]
        self._database.execute(
            "INSERT INTO messages (tenant, conversation_id, id, life, at, body) VALUES (?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (tenant, conversation_id, id)"
            " DO UPDATE SET life = excluded.life, at = excluded.at, body = excluded.body",
            (*whose, message["id"], told["life"], told["at"], written(message)),
        )

    def _remove(self, whose: Whose, ids: list[str] | None) -> None:
        """Forget messages, and wherever else their words stand; all if there are no ids."""
        rows = self._database.execute(
            "SELECT id FROM messages WHERE (tenant, conversation_id) = (?, ?)", whose
        ).fetchall()
        gone = set(ids) if ids is not None else None
        self._database.executemany(
            "DELETE FROM messages WHERE (tenant, conversation_id, id) = (?, ?, ?)",
            [(*whose, id_) for (id_,) in rows if gone is None or id_ in gone],
        )
        told = self._database.execute(
            "SELECT number, body FROM happenings WHERE (tenant, conversation_id) = (?, ?)"
            " AND type IN ('turn.completed', 'transcription.final')",
            whose,
        ).fetchall()
        for number, kept in told:
            body = written(without(json.loads(kept), gone))
            self._database.execute("UPDATE happenings SET body = ? WHERE number = ?", (body, number))

    def recent(self, whose: Whose, limit: int) -> str:
        """Return an answer with the newest messages, the oldest of them first: as many as may be in an answer."""
        rows = self._database.execute(
            "SELECT body FROM messages WHERE (tenant, conversation_id) = (?, ?) ORDER BY position DESC LIMIT ?",
            (*whose, limit),
        )
        messages, left = list[str](), MOST_BYTES - len('{"messages":[]}')
        for (body,) in rows:
            left -= len(body.encode()) + 1
            if left < 0:
                break
            messages.append(body)
        return f'{{"messages":[{",".join(reversed(messages))}]}}'

    def delete(self, whose: Whose, before: str, lives: list[str]) -> None:
        """Forget what is of these lives of a conversation, or happened not after `before`; and drop what comes of it.

        What is of another life and happened later is a conversation that has begun anew since.
        """
        with self._database as database:
            database.executemany("INSERT OR IGNORE INTO deleted VALUES (?, ?, ?)", [(*whose, life) for life in lives])
            database.execute(
                "INSERT INTO deletions VALUES (?, ?, ?) ON CONFLICT (tenant, conversation_id)"
                " DO UPDATE SET before = max(before, excluded.before)",
                (*whose, before),
            )
            for table in ("taken", "messages", "happenings"):
                gone = f"DELETE FROM {table} WHERE (tenant, conversation_id) = (?, ?)"  # noqa: S608
                database.execute(f"{gone} AND at <= ?", (*whose, before))
                database.executemany(f"{gone} AND life = ?", [(*whose, life) for life in lives])

    def earlier_calls(self, tenant: str, identity: str) -> list[Body]:
        """Return the records of the last calls somebody was in, in whichever conversation, the oldest first."""
        rows = self._database.execute(
            "SELECT body FROM callers JOIN happenings USING (number)"
            " WHERE (callers.tenant, callers.identity) = (?, ?) ORDER BY callers.number DESC LIMIT ?",
            (tenant, identity, CALLS_TOLD),
        )
        return [json.loads(body) for (body,) in rows][::-1]


def written(body: Body) -> str:
    """Return JSON as short as it can be; half a surrogate pair, which no file can have, becomes a question mark."""
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode(errors="replace").decode()


def without(body: Body, gone: set[str] | None) -> Body:
    """Return what was told, without the words of removed messages: of all if there are no ids."""

    def is_gone(ids: list[str | None]) -> bool:
        return gone is None or not gone.isdisjoint(ids)

    if body["type"] == "transcription.final":
        return {**body, "text": None} if is_gone([body["item_id"]]) else body
    user, agent = body["user"], body["agent"]
    return {
        **body,
        "user": {**user, "text": None} if is_gone(user["item_ids"]) else user,
        "agent": {**agent, "text": None} if is_gone([agent["item_id"]]) else agent,
    }


def context_of(record: Body) -> str:
    """Say what the agent should know of an earlier call."""
    known = [f"An earlier call, of {record['at'][:10]}, lasted {record['duration']:.0f} s ({record['end_reason']})."]
    if record.get("summary"):
        known.append(str(record["summary"]))
    if record.get("outcome"):
        known.append(f"Its outcome: {json.dumps(record['outcome'], ensure_ascii=False)}.")
    return " ".join(known)


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
NULL = type(None)
WHOSE: Body = {"at": str, "conversation_id": str, "life": str, "call_id": (str, NULL), "tenant": str}
DELIVERIES: Mapping[str, Body] = {
    "/v1/messages": {"type": {"message.stored"}, "message": {"id": str}},
    "/v1/messages/removed": {"type": {"messages.removed"}, "ids": ([str], NULL)},
    "/v1/turns": {"type": {"turn.completed"}, "user": {"item_ids": [str]}, "agent": {"item_id": str}},
    "/v1/transcriptions": {"type": {"transcription.final"}, "item_id": str},
    "/v1/speeches": {"type": {"speech.finished"}},
    "/v1/participants/connected": {"type": {"participant.joined", "participant.returned"}, "identity": str},
    "/v1/participants/left": {"type": {"participant.left"}, "identity": str},
    "/v1/agents/joined": {"type": {"agent.joined", "agent.replaced"}, "role": str},
    "/v1/errors": {"type": {"error.noted"}},
    "/v1/sessions": {
        "type": {"session.recorded"},
        "participants": [{"identity": str}],
        "end_reason": str,
        "duration": (int, float),
    },
}
"""Where what happens arrives, and what this server relies on in it. There may be more fields, today or tomorrow."""
INTERIM: Body = {**WHOSE, "type": {"transcription.interim"}}
KNOWN = {kind for shape in [*DELIVERIES.values(), INTERIM] for kind in shape["type"]}
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", re.ASCII)
CONTEXT: Body = {"tenant": str, "identity": (str, NULL)}


class Backend:
    """Answers requests, one after the other: each takes less than a millisecond, or one write to the disk."""

    def __init__(self, records: Records, token: str) -> None:
        self._records, self._token = records, token

    def application(self) -> web.Application:
        """Return the application with all routes of the document."""
        application = web.Application(client_max_size=MOST_BYTES, middlewares=[self._admit])
        for path, shape in DELIVERIES.items():
            application.router.add_post(path, self._taking(path, shape))
        application.router.add_get("/v1/messages", self._recent)
        application.router.add_post("/v1/context", self._context)
        application.router.add_delete("/v1/conversations", self._delete)
        application.router.add_route("*", "/v1/{tomorrow:.+}", self._ignore)
        return application

    @web.middleware
    async def _admit(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Let only those in who know the token."""
        told = request.headers.get("Authorization", "").encode()
        if self._token and not hmac.compare_digest(told, f"Bearer {self._token}".encode()):
            return refused(401, "the token is missing or wrong")
        return await handler(request)

    def _taking(self, path: str, shape: Body) -> Handler:
        async def take(request: web.Request) -> web.StreamResponse:
            body = await read(request)
            if is_of_tomorrow(body):
                return web.Response(status=204)
            if path == "/v1/transcriptions" and fits(body, INTERIM):
                return web.Response(status=204)  # a screen that shows what is being said would show it
            key = request.headers.get("Idempotency-Key")
            if not key or body is None or not fits(body, {**WHOSE, **shape}):
                return refused(400, "the request does not fit the document")
            self._records.take(key, body)
            return web.Response(status=204)

        return take

    async def _ignore(self, request: web.Request) -> web.StreamResponse:
        """Take what a newer version sends to a path of its own: refused, it would make its conversation wait."""
        if request.method == "POST" and is_of_tomorrow(await read(request)):
            return web.Response(status=204)
        return refused(404, "there is no such path")

    async def _recent(self, request: web.Request) -> web.StreamResponse:
        """Answer with messages: none if the conversation is not known."""
        limit = request.query.get("limit", "")
        if (whose := whose_is(request)) is None or not limit.isdecimal():
            return refused(400, "conversation_id, tenant or limit is missing or wrong")
        return web.json_response(text=self._records.recent(whose, min(int(limit), MOST_MESSAGES)))

    async def _context(self, request: web.Request) -> web.StreamResponse:
        """Answer with what the agent should know for this turn. The call goes on without it after 150 ms."""
        body = await read(request)
        if body is None or not fits(body, CONTEXT):
            return refused(400, "the request does not fit the document")
        calls = self._records.earlier_calls(body["tenant"], body["identity"]) if body["identity"] else []
        return web.json_response({"context": [context_of(one) for one in calls]})

    async def _delete(self, request: web.Request) -> web.StreamResponse:
        """Forget a conversation, also one that is not known: the request may come again."""
        whose, before = whose_is(request), request.query.get("before", "")
        if whose is None or not MOMENT.fullmatch(before):
            return refused(400, "conversation_id, tenant or before is missing or wrong")
        self._records.delete(whose, before, request.query.getall("life", []))
        return web.Response(status=204)


def refused(status: int, reason: str) -> web.Response:
    """Return an answer that says why a request is not taken."""
    return web.json_response({"error": reason}, status=status)


async def read(request: web.Request) -> Body | None:
    """Return the object in a request; None if it has none."""
    try:
        body = await request.json()
    except (ValueError, RecursionError):
        return None
    return body if isinstance(body, dict) else None


def is_of_tomorrow(body: Body | None) -> bool:
    """Tell whether this is a delivery of a type that is not known here, as a newer version may send."""
    return fits(body, {**WHOSE, "type": str}) and body is not None and body["type"] not in KNOWN


def fits(value: Any, shape: Any) -> bool:
    """Tell whether a value is as it should be: an object with these fields, a list of these, one of these, a type."""
    match shape:
        case dict():
            return isinstance(value, dict) and all(
                name in value and fits(value[name], one) for name, one in shape.items()
            )
        case list():
            return isinstance(value, list) and all(fits(one, shape[0]) for one in value)
        case tuple():
            return any(fits(value, one) for one in shape)
        case set():
            return isinstance(value, str) and value in shape
        case _:
            return isinstance(value, shape)


def whose_is(request: web.Request) -> Whose | None:
    """Return the conversation that is asked for."""
    tenant, conversation_id = request.query.get("tenant"), request.query.get("conversation_id")
    return Whose(tenant, conversation_id) if tenant and conversation_id else None


async def serve(port: int, path: str, token: str) -> None:
    """Serve on 127.0.0.1 until somebody says stop."""
    with closing(Records(path)) as records:
        runner = web.AppRunner(Backend(records, token).application(), access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        print(f"http://127.0.0.1:{runner.addresses[0][1]}", flush=True)
        stop = asyncio.Event()
        for sign in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(sign, stop.set)
        await stop.wait()
        await runner.cleanup()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A back end for conversation-actors.")
    parser.add_argument("--port", type=int, default=8090, help="0: any that is free")
    parser.add_argument("--database", default="backend.db", help="an SQLite file")
    chosen = parser.parse_args()
    asyncio.run(serve(chosen.port, chosen.database, os.environ.get("BACKEND_TOKEN", "")))
