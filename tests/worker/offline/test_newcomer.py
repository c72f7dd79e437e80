"""The offline model, met for the first time: what a newcomer says is answered, remembered, and looked up."""

import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from livekit.agents import AgentSession
from livekit.agents.llm import ToolError

from agent_worker.example.agent import SupportAgent
from agent_worker.offline import OfflineServer
from agent_worker.offline.heard import Heard, order_in, plain
from agent_worker.offline.script import ChatRequest, Reply, TranscriptScript
from agent_worker.offline.small_talk import FirstCallScript, SmallTalk
from agent_worker.offline.transcript import Transcript
from tests.support.sessions.fake_conversation import FakeConversation
from tests.worker.conftest import Starter

SENTENCES = Path(__file__).parents[2] / "data" / "newcomer" / "sentences.json"
ENOUGH = 25
"""Of the thirty sentences."""
TOOLS = frozenset({"look_up_order", "reschedule_delivery", "add_delivery_note", "call_supervisor"})


@dataclass(frozen=True)
class Sentence:
    """What a newcomer says, and what a sensible answer to it has in it."""

    said: str
    sensible: str
    calls: str | None = None

    def is_answered_by(self, answer: str, calls: list[str]) -> bool:
        """Whether the answer is sensible, and the tool that it takes was called."""
        has_called = self.calls is None or self.calls in calls
        return has_called and re.search(self.sensible, answer, re.IGNORECASE) is not None


@pytest.fixture(scope="module")
def sentences() -> list[Sentence]:
    """The thirty, as they were written down before there was an answer to any."""
    return [Sentence(**one) for one in json.loads(SENTENCES.read_text("utf-8"))["sentences"]]


@pytest_asyncio.fixture
async def model(transcript: Transcript) -> AsyncIterator[OfflineServer]:
    """The offline model as whoever names no transcript of their own gets it."""
    async with OfflineServer(FirstCallScript(transcript)) as running:
        yield running


async def _answer(session: AgentSession[None], said: str) -> tuple[str, list[str]]:
    """What is said to a sentence, all of it, and the tools that were called for it."""
    result: Any = await session.run(user_input=said)
    spoken = [event.item for event in result.events if event.type == "message" and event.item.role == "assistant"]
    calls = [event.item.name for event in result.events if event.type == "function_call"]
    return " ".join(item.text_content or "" for item in spoken), calls


async def test_most_of_what_a_newcomer_says_is_answered_sensibly(
    model: OfflineServer, started: Starter, sentences: list[Sentence]
) -> None:
    """At least 25 of 30 sentences that were fixed beforehand, in one call with the example agent and its tools."""
    answers: list[str] = []
    async with started(model, SupportAgent(), FakeConversation()) as (session, _):
        for sentence in sentences:
            answer, calls = await _answer(session, sentence.said)
            verdict = "yes" if sentence.is_answered_by(answer, calls) else "NO "
            answers.append(f"{verdict} {sentence.said!r} {calls} -> {answer}")
    sensible = [line for line in answers if line.startswith("yes")]
    assert len(sentences) == 30
    assert len(sensible) >= ENOUGH, "\n".join(answers)
    assert not [line for line in answers if "messages" in line or "lost the thread" in line]


async def test_a_successor_knows_what_its_predecessor_was_told(model: OfflineServer, started: Starter) -> None:
    """After a crash another session, restored from the conversation, still has the name, the order and the new day."""
    conversation = FakeConversation()
    async with started(model, SupportAgent(), conversation) as (session, _):
        for said in ("Hi, I'm Anna", "my order is 1042", "can I get it on Friday?"):
            await _answer(session, said)
    async with started(model, SupportAgent(), conversation) as (session, _):
        assert await _answer(session, "what's my name?") == ("Your name is Anna.", [])
        assert "1042" in (await _answer(session, "which order did I ask about?"))[0]
        answer, calls = await _answer(session, "so where is it?")
    assert calls == ["look_up_order"]
    assert "you moved it to Friday" in answer


# One request at a time


def _user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def _used(tool: str, output: str, call_id: str = "call_talk_1") -> list[dict[str, Any]]:
    function = {"name": tool, "arguments": "{}"}
    return [
        {"role": "assistant", "tool_calls": [{"id": call_id, "type": "function", "function": function}]},
        {"role": "tool", "tool_call_id": call_id, "content": output},
    ]


def _reply(*messages: dict[str, Any], tools: frozenset[str] = TOOLS, allowed: bool = True) -> Reply:
    return SmallTalk().reply(ChatRequest(messages, tools, allowed))


def test_a_transcript_goes_first(transcript: Transcript) -> None:
    """Whoever speaks the transcript's lines gets its answers; whoever comes in the middle is not told of a hole."""
    script = FirstCallScript(transcript)
    first = script.reply(ChatRequest([_user(transcript.turns[0].user)], TOOLS))
    assert first.text == transcript.turns[0].reply
    bye = script.reply(ChatRequest([_user("Hello!"), _user(transcript.turns[-1].user)], TOOLS))
    assert bye.text == "Goodbye, and thank you for calling."


def test_a_script_by_itself_tells_of_holes(transcript: Transcript) -> None:
    """A transcript that was asked for by name is for finding lost history: it says so, as ever."""
    reply = TranscriptScript(transcript).reply(ChatRequest([_user(transcript.turns[-1].user)], TOOLS))
    assert "lost the thread" in reply.text


def test_what_was_cut_off_is_not_claimed() -> None:
    """A tool whose outcome is unknown after a crash is said to be unknown, and is not called again."""
    reply = _reply(_user("my order is A-1042"), *_used("look_up_order", "interrupted; outcome unknown"))
    assert "don't know whether it went through" in reply.text
    assert not reply.calls


def test_an_agent_without_tools_is_not_promised_any() -> None:
    """An application's own agent has other tools, or none: no order is looked up, and none is offered to be."""
    assert "A-1042" not in _reply(_user("What can you do?"), tools=frozenset()).text
    assert "open_door" in _reply(_user("What can you do?"), tools=frozenset({"open_door"})).text
    for said in ("Where is order A-1042?", "tell the driver to wait", "bring it on Friday", "I want a human"):
        assert _reply(_user(said), tools=frozenset()).calls == ()
        assert _reply(_user(said), allowed=False).calls == ()


def test_each_call_has_an_id_of_its_own() -> None:
    """Also where the older calls have left the window: an output is never taken for another call's."""
    kept = _used("look_up_order", "Order A-1042: lamp.", call_id="call_talk_41")
    reply = _reply(_user("my order is A-1042"), *kept, {"role": "assistant", "content": "Here."}, _user("where is it?"))
    assert [call.call_id for call in reply.calls] == ["call_talk_42"]


def test_who_is_asked_again_does_not_start_over() -> None:
    """A model run again behind its own answer, or before anybody spoke, has a word for that."""
    assert _reply().text == "Hello. How can I help?"
    assert "anything else" in _reply(_user("hello"), {"role": "assistant", "content": "Hello."}).text


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ("my name is anna", "Anna"),
        ("Hello, my name is Clara Schumann and I have a question", "Clara Schumann"),
        ("I'm Ben", "Ben"),
        ("I\u2019m O'Neill.", "O'Neill"),
        ("This is Maria speaking", "Maria"),
        ("call me Ishmael", "Ishmael"),
        ("I'm sorry", None),
        ("I'm Sorry about that", None),
        ("my name is what?", None),
        ("Friday", None),
        ("I am looking for my order", None),
    ],
)
def test_names(said: str, name: str | None) -> None:
    """Who somebody says to be, and nothing that is no name."""
    heard = Heard.of(ChatRequest([_user(said)]))
    assert heard is not None
    assert heard.name == name


def test_a_name_alone_counts_where_it_was_asked_for() -> None:
    """One word in answer to the question; the latest name is the one that holds."""
    asked = {"role": "assistant", "content": "You have not told me your name yet. What is it?"}
    heard = Heard.of(ChatRequest([_user("I'm Ben"), asked, _user("Anna")]))
    assert heard is not None
    assert heard.name == "Anna"


@pytest.mark.parametrize(
    ("said", "order"),
    [
        ("A-1042", "A-1042"),
        ("a1042 please", "A-1042"),
        ("it is A 1042", "A-1042"),
        ("4711", "4711"),
        ("my order number is 4711", "4711"),
        ("sorry, not 1024, the order is A-1042", "A-1042"),
        ("the gate code is 4471", None),
        ("I moved here in 1999 and have liked lamps since", None),
        ("number 12", None),
    ],
)
def test_order_numbers(said: str, order: str | None) -> None:
    """The last number that can be an order's; neither codes, nor years, nor short ones."""
    assert order_in(said) == order


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("whre is my oder?", "where is my order"),
        ("What's my nmae", "whats my name"),
        ("the same game", "the same game"),
    ],
)
def test_slips_of_the_finger(typed: str, meant: str) -> None:
    """A letter missing, too many, or swapped with the next; another letter in its place is another word."""
    assert plain(typed) == meant


async def test_the_shop_takes_numbers_as_callers_say_them() -> None:
    """With and without the letter; what it answers has the number as the shop writes it."""
    agent: Any = SupportAgent()
    for said in ("A-1042", "1042", "a1042", "A 1042"):
        assert (await agent.look_up_order(said)).startswith("Order A-1042: ")
        assert (await agent.add_delivery_note(said, "ring")).endswith("order A-1042: ring")
    with pytest.raises(ToolError, match="There is no order A-1024"):
        await agent.look_up_order("A-1024")
