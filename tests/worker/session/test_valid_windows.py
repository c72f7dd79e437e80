"""Whatever was said, wherever the window begins: what is restored is a request that every vendor takes."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from livekit.agents import Agent
from livekit.agents.llm import ChatContext, ChatItem, ChatMessage

from agent_worker.session.bounds import cut
from agent_worker.session.context import Heard
from agent_worker.session.had_the_word import HadTheWord
from agent_worker.session.restoration import Restored, restore, restore_late
from agent_worker.session.serialise import to_fields
from conversation_actors.items import StoredItem, item_from_dict
from conversation_actors.state.facts import Limits
from conversation_actors.state.window import Window
from tests.support.sessions import provider_rules
from tests.support.sessions.fakes_room import FakeConversation
from tests.support.sessions.made_items import call, new_session, output, said, stored
from tests.support.sessions.provider_rules import RULES, refusals

_TOOL = {"function_call", "function_call_output"}


async def given_to(
    conversation: FakeConversation, *, had: HadTheWord | None = None, context: ChatContext | None = None
) -> tuple[list[ChatItem], list[ChatItem], Restored]:
    """What a successor's session, and its agent, know."""
    session, agent = new_session(), Agent(instructions="x", chat_ctx=context or ChatContext.empty())
    restored = await restore(session, agent, conversation, had=had)
    return session.history.items, agent.chat_ctx.items, restored


def spoken(items: Sequence[ChatItem]) -> list[ChatItem]:
    """Without instructions, and who had the word."""
    return [
        item
        for item in items
        if item.type != "agent_handoff" and not (item.type == "message" and item.role in {"system", "developer"})
    ]


def assert_valid(items: Sequence[ChatItem]) -> None:
    """It begins with no tool, and all vendors take it."""
    assert not [item.type for item in spoken(items)[:1] if item.type in _TOOL]
    for instructions in ([], [said("system", "Be kind.", id="lk.agent_task.instructions")]):
        assert refusals([*instructions, *items]) == {}


# Histories


class _Talk:
    """What may happen in calls, step by step."""

    def __init__(self, draw: st.DrawFn) -> None:
        """Nothing was said."""
        self._draw = draw
        self._late: list[ChatItem] = []
        self.items: list[ChatItem] = []

    def step(self, kind: str, number: int) -> None:
        """Let one thing happen."""
        if kind in {"system", "developer", "user", "assistant"}:
            self.items.append(said(kind, self._draw(st.sampled_from(["Hello", "Yes.", "a b", "", " "])), number))
        else:
            getattr(self, kind)(number)

    def reply(self, number: int) -> None:
        """Words, or none, and tools whose outputs come at once or later, in any order, some without a name."""
        count = self._draw(st.integers(1, 3))
        ids = [f"{number}_{one}" for one in range(count)]
        if self._draw(st.booleans()):
            self.items.append(said("assistant", "One moment.", number, id=f"item_{number}"))
        self.items += [call(number, id=f"item_{number}/fnc_{one}", call_id=f"call_{one}") for one in ids]
        outputs = [
            output(number, id=f"output_{one}", call_id=f"call_{one}", name=self._draw(st.sampled_from(["search", ""])))
            for one in self._draw(st.permutations(ids))
        ]
        (self._late if self._draw(st.booleans()) else self.items).extend(outputs)

    def outputs(self, _number: int) -> None:
        """What comes later."""
        self.items += self._late
        self._late = []

    def group(self, number: int) -> None:
        """Two calls of one reply, by their group."""
        ids = [f"{number}_{one}" for one in (0, 1)]
        self.items += [call(number, group_id=f"group_{number}", id=f"item_{one}", call_id=f"g_{one}") for one in ids]
        self.items += [output(number, id=f"output_{one}", call_id=f"g_{one}") for one in reversed(ids)]

    def crash(self, number: int) -> None:
        """A tool that never ends."""
        self.items.append(call(number))

    def orphan(self, number: int) -> None:
        """What nobody has called."""
        self.items.append(output(number))

    def repeated(self, number: int) -> None:
        """A call id that comes again."""
        self.items += [call(number, call_id="call_again"), output(number, call_id="call_again", text=str(number))]

    def late_call(self, number: int) -> None:
        """An output that was stored before its call."""
        self.items += [output(number), call(number)]


@st.composite
def histories(draw: st.DrawFn) -> list[ChatItem]:
    """What may happen in calls: greetings, several tools at once, words before calls, crashes."""
    talk = _Talk(draw)
    for number, kind in enumerate(draw(st.lists(st.sampled_from(_STEPS), max_size=14))):
        talk.step(kind, number)
    return talk.items


_STEPS = [
    *("user", "user", "assistant", "assistant", "reply", "reply", "outputs", "group", "crash"),
    *("orphan", "repeated", "late_call", "system", "developer"),
]


def window_of(items: Sequence[ChatItem], most: int) -> list[ChatItem]:
    """What a conversation still holds of them that keeps so many."""
    window = Window()
    by_id = {item.id: item for item in items}
    limits = Limits(items=most, bytes=1 << 30)
    for item in items:
        arriving = [StoredItem.parse(item_from_dict(to_fields(item)).to_stored().data)]
        leaving = window.evictions(arriving, limits)
        window.put(arriving)
        window.remove(leaving, orphans_kept=100)
    return [by_id[one.id] for one in window]


@settings(max_examples=300, deadline=None)
@given(histories(), st.integers(1, 40))
def test_any_window_of_any_history_is_a_valid_request(items: list[ChatItem], most: int) -> None:
    """A session's history and an agent's context are what every vendor takes, whatever has left the conversation."""
    history, context, _ = asyncio.run(given_to(stored(window_of(items, most))))
    assert not [item.type for item in spoken(history)[:1] if item.type in _TOOL]
    assert_valid(context)


@settings(max_examples=200, deadline=None)
@given(histories(), st.data())
def test_any_part_that_an_agent_has_heard_is_a_valid_request(items: list[ChatItem], data: st.DataObject) -> None:
    """Nor what an agent knows that has heard only a part of it, as after a handover, and has brought something."""
    known = {item.id for item in items if data.draw(st.booleans())}
    brought = data.draw(st.lists(st.sampled_from(["system", "user", "assistant"]), max_size=2))
    context = ChatContext([said(role, f"Brought by {role}.") for role in brought])
    had = HadTheWord("default_agent", heard=Heard.of(items, known))
    _, known_to_it, _ = asyncio.run(given_to(stored(items), had=had, context=context))
    assert refusals(known_to_it) == {}


@settings(max_examples=200, deadline=None)
@given(histories(), st.integers(1, 20))
def test_a_valid_context_is_valid_when_it_was_cut(items: list[ChatItem], most: int) -> None:
    """What `SessionBounds` leaves of a valid context is valid."""
    _, context, _ = asyncio.run(given_to(stored(items)))
    assert_valid(cut(context, most))


@settings(max_examples=100, deadline=None)
@given(histories(), st.integers(1, 20))
def test_a_truncated_context_begins_with_a_turn_in_the_next_job(items: list[ChatItem], most: int) -> None:
    """The successor of an agent whose context began in the middle of a turn begins with a turn."""
    _, context, _ = asyncio.run(given_to(stored(items)))
    shorter = ChatContext(list(context)).truncate(max_items=most).items
    had = HadTheWord("default_agent", heard=Heard.of(items, {item.id for item in shorter}))
    _, following, _ = asyncio.run(given_to(stored(items), had=had))
    assert_valid(following)


@settings(max_examples=100, deadline=None)
@given(histories())
def test_every_later_successor_is_given_the_same(items: list[ChatItem]) -> None:
    """What was made up is recorded, and changes nothing for the next one: order, content and ids are the same."""

    async def follow() -> None:
        conversation = stored(items)
        told: list[list[Any]] = []
        for _ in range(3):
            history, context, restored = await given_to(conversation)
            for item in restored.made_up:
                conversation.record(item_from_dict(to_fields(item)))
            told.append([[(item.id, item.type) for item in part] for part in (history, context)])
        assert told[0] == told[1] == told[2]

    asyncio.run(follow())


@settings(max_examples=100, deadline=None)
@given(histories(), st.integers(0, 6))
def test_what_is_put_in_front_of_a_running_session_begins_with_no_tool(items: list[ChatItem], own: int) -> None:
    """What is put in front of a session that runs already begins with no tool."""

    async def open_late() -> None:
        session, agent = new_session(), Agent(instructions="x")
        meanwhile = [said("user", f"late {number}", 10_000 + number) for number in range(own)]
        session.history.merge(ChatContext(list(meanwhile)))
        await agent.update_chat_ctx(ChatContext(list(meanwhile)))
        await restore_late(session, stored(items), agent)
        assert_valid(agent.chat_ctx.items)
        assert not [item.type for item in spoken(session.history.items)[:1] if item.type in _TOOL]

    asyncio.run(open_late())


# The cases by name


async def test_a_window_that_begins_in_a_reply_has_no_call_without_a_turn_before_it() -> None:
    """Words, calls and outputs whose question has left: Gemini refuses a call behind no turn of the user."""
    words = said("assistant", "One moment.", 1, id="item_1")
    items: list[ChatItem] = [words, call(1), output(1), said("assistant", "Here it is.", 2), said("user", "Thanks", 3)]
    history, context, restored = await given_to(stored(items))
    assert [item.type for item in history] == ["message"] * 3
    assert (restored.function_calls, restored.function_call_outputs) == (0, 0)
    assert_valid(context)


async def test_what_a_tool_gave_before_the_caller_s_first_turn_is_told_in_words() -> None:
    """An agent that looks somebody up when it enters knows of it still, and each successor is told once."""
    items: list[ChatItem] = [
        call(1),
        output(1, text="Anna, gold"),
        said("assistant", "Hello Anna.", 2),
        said("user", "Hi", 3),
    ]
    conversation = stored(items)
    _, context, _ = await given_to(conversation)
    told = context[0]
    assert isinstance(told, ChatMessage)
    assert all(word in (told.text_content or "") for word in ("search", '{"n": 1}', "Anna, gold"))
    assert [item.type for item in context] == ["message"] * 3
    _, again, _ = await given_to(conversation)
    assert [item.id for item in again] == [item.id for item in context]


async def test_a_tool_that_was_interrupted_before_the_caller_s_first_turn_is_told() -> None:
    """Its call can stand in no request, and the model must know of it all the same; the conversation has its output."""
    _, context, restored = await given_to(stored([call(1)]))
    assert [one.call_id for one in restored.interrupted_calls] == ["call_1"]
    assert ["interrupted; outcome unknown" in str(item) for item in context] == [True]
    assert_valid(context)


async def test_calls_of_one_id_keep_their_own_outputs() -> None:
    """Some models begin to count anew in each reply: each call keeps its own output."""
    items: list[ChatItem] = [said("user", "Hello")]
    for number in (1, 2, 3):
        items += [call(number, call_id="call_0"), output(number, call_id="call_0", text=f"result {number}")]
    items.append(call(4, call_id="call_0"))
    _, context, restored = await given_to(stored(items))
    assert_valid(context)
    results = {item.call_id: item.output for item in context if item.type == "function_call_output"}
    calls = [item.call_id for item in context if item.type == "function_call"]
    texts = ["result 1", "result 2", "result 3", "interrupted; outcome unknown"]
    assert [results[call_id] for call_id in calls] == texts
    assert [one.call_id for one in restored.interrupted_calls] == ["call_0"]
    assert restored.duplicate_outputs == 0


# The rules themselves


_QUESTION = {"role": "user", "parts": [{"text": "?"}]}
_PART = {"function_call": {"name": "t"}}
_CALL = {"role": "model", "parts": [_PART]}
_RESPONSE = {"role": "user", "parts": [{"function_response": {"name": "t"}}]}


@pytest.mark.parametrize(
    ("turns", "is_taken"),
    [
        ([_QUESTION, _CALL, _RESPONSE], True),
        ([_CALL, _RESPONSE], False),
        ([{"role": "model", "parts": [{"text": "Hi"}]}, _CALL, _RESPONSE], False),
        ([_QUESTION, _CALL, _QUESTION], False),
        ([_QUESTION, _RESPONSE], False),
        ([_QUESTION, {"role": "model", "parts": [_PART, _PART]}, _RESPONSE], False),
    ],
)
def test_the_checker_refuses_what_gemini_refuses(turns: list[Any], is_taken: bool) -> None:  # noqa: FBT001  # by pytest
    """The checker refuses what Gemini refuses."""
    assert (not list(provider_rules.google(turns))) is is_taken


@pytest.mark.parametrize("vendor", RULES)
def test_each_checker_finds_a_call_without_an_output(vendor: str) -> None:
    """Each checker finds a call without an output, where LiveKit would send one."""
    broken: dict[str, Callable[[], list[Any]]] = {
        "openai": lambda: [{"role": "assistant", "tool_calls": [{"id": "a"}]}],
        "openai.responses": lambda: [{"type": "function_call", "call_id": "a"}],
        "anthropic": lambda: [
            {"role": "user", "content": [{"type": "text", "text": "a"}]},
            {"role": "assistant", "content": [{"type": "tool_use", "id": "a"}]},
        ],
        "google": lambda: [_QUESTION, _CALL],
        "aws": lambda: [
            {"role": "user", "content": [{"text": "a"}]},
            {"role": "assistant", "content": [{"toolUse": {"toolUseId": "a", "name": "t"}}]},
        ],
        "mistralai": lambda: [{"type": "function.call", "tool_call_id": "a"}],
    }
    assert list(RULES[vendor](broken[vendor]()))
