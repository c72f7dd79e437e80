"""What the tests of whole calls share: the written call, the one agent's history, and a table of what was measured."""

import re
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from livekit import api, rtc

from agent_worker.offline.transcript import Transcript, load
from agent_worker.tenure.conversation import LEASE
from conversation_actors import ConversationClient, Heartbeats, Item, Settings
from tests.support.caller import Caller
from tests.support.distant import DistantCaller
from tests.support.livekit_server import LiveKitServer
from tests.support.servers import wait_until

Speaker = Caller | DistantCaller
GREETING = "Hello, you're speaking with the assistant. How can I help?"
BACK = "Sorry, I'm back."
SHORT_CALL = Path(__file__).with_name("short_call.json")
"""As many tools and outcomes as the call of the package has, in half the words: all that is said takes its time."""
CALL = load(SHORT_CALL)
"""What the `models` of a scene follow."""
_LAST_WORDS = 12
UTTERANCE = 60.0
"""Seconds that an answer may take: a long one is spoken at twenty characters a second, on a busy machine."""


def dispatch(agent_name: str, metadata: str = "") -> tuple[api.RoomAgentDispatch, ...]:
    """What a token says, so that the agent comes when its owner creates the room."""
    return (api.RoomAgentDispatch(agent_name=agent_name, metadata=metadata),)


@asynccontextmanager
async def somebody(server: LiveKitServer, room: str, *agents: api.RoomAgentDispatch) -> AsyncIterator[rtc.Room]:
    """A person in the room who says nothing, whose token may bring agents along."""
    person = rtc.Room()
    await person.connect(server.url, server.token("caller", room, dispatch=agents))
    try:
        yield person
    finally:
        await person.disconnect()


async def turn(caller: Speaker, number: int, call: Transcript = CALL) -> None:
    """Say a turn of the written call, and hear the answer that is written there, to its end."""
    line = call.turns[number]
    said = await caller.say(line.user)
    await hear(caller, line.reply, after=said.started)


async def hear(caller: Speaker, text: str, *, after: float) -> None:
    """Hear an answer to its end: it comes one sentence after the other, and its last words are in one of them."""
    await caller.wait_heard(text[-_LAST_WORDS:], UTTERANCE, after=after)


def times_heard(caller: Speaker, text: str) -> int:
    """How often something was said to the caller, by whichever agent: counted by its first sentence."""
    first = re.split(r"(?<=[.?!]) ", text)[0]
    return sum(one.text.count(first) for one in caller.heard)


@dataclass(frozen=True, slots=True)
class Stored:
    """What a conversation holds, as a process that has nothing to do with the call reads it."""

    items: tuple[Item, ...]
    attributes: dict[str, Any]
    participants: dict[str, Any]

    @property
    def said(self) -> list[tuple[str, str]]:
        """Role and text of all messages, in order."""
        told = [item.to_dict() for item in self.items if item.type == "message"]
        return [(one["role"], " ".join(part for part in one["content"] if isinstance(part, str))) for one in told]

    def by_user(self) -> list[str]:
        """What the caller said."""
        return [text for role, text in self.said if role == "user"]

    def assert_nothing_lost(self, turns: Sequence[int], call: Transcript = CALL) -> None:
        """Every turn is there once, in order, each tool call with one output, no id twice."""
        assert self.by_user() == [call.turns[number].user for number in turns]
        ids = [item.id for item in self.items]
        assert len(ids) == len(set(ids))
        calls = Counter(item.to_dict()["call_id"] for item in self.items if item.type == "function_call")
        outputs = Counter(item.to_dict()["call_id"] for item in self.items if item.type == "function_call_output")
        assert calls == outputs
        assert all(count == 1 for count in calls.values())
        wanted = [len(step.calls) for number in turns for step in call.turns[number].steps]
        assert sum(calls.values()) == sum(wanted)


async def stored(client: ConversationClient, conversation_id: str) -> Stored:
    """Read a conversation from its owner."""
    conversation = await client.open(conversation_id, create=False)
    snapshot = await conversation.snapshot(fresh=True)
    return Stored(snapshot.items, dict(snapshot.attributes), dict(snapshot.participants))


async def agent_of(settings: Settings, conversation_id: str, *, other_than: str = "") -> tuple[str, int]:
    """The job that is the agent of a conversation, and its process; waits until there is one."""
    async with Heartbeats(settings, lease=LEASE) as heartbeats:

        async def find() -> tuple[str, int] | None:
            record = await heartbeats.find(conversation_id)
            if record is None or not record.is_alive or record.holder == other_than:
                return None
            return record.holder, int(record.details["pid"])

        found: list[tuple[str, int]] = []

        async def has_agent() -> bool:
            record = await find()
            found.extend([record] if record else [])
            return bool(found)

        await wait_until(has_agent, "the conversation to have an agent", patience=30)
        return found[0]


def identity_of(holder: str) -> str:
    """The LiveKit identity of an agent: LiveKit derives it from the job's id."""
    return f"agent-{holder}"


async def reset_rooms(server: LiveKitServer, room: str) -> None:
    """End a room, and the call in it."""
    await server.delete_room(room)
