"""A context is described by what of the history it has, and made again from that."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from livekit.agents.llm import AgentConfigUpdate, AgentHandoff, ChatItem, ChatMessage, FunctionCall, FunctionCallOutput

from agent_worker.session.context import INTERRUPTED_SUFFIX, Brought, Heard, brought_into, composed


def messages(*names: str, at: float = 0.0) -> list[ChatItem]:
    """Messages by their ids, one second apart."""
    return [
        ChatMessage(id=name, role="user", content=[name], created_at=at + number) for number, name in enumerate(names)
    ]


def ids(items: Sequence[ChatItem]) -> list[str]:
    """What they are called."""
    return [item.id for item in items]


_names = st.lists(st.sampled_from("abcdefghijkl"), unique=True)


@given(history=_names, known=st.sets(st.sampled_from("abcdefghijkl")), later=_names, is_cut=st.booleans())
def test_what_was_heard_is_what_is_chosen(
    history: list[str], known: set[str], later: list[str], *, is_cut: bool
) -> None:
    """Of any part of a history, read back as it is noted, and all that comes later is heard too."""
    items = messages(*history)
    heard = Heard.read(Heard.of(items, known, is_cut=is_cut).to_dict())
    expected = [name for name in history if name in known]
    assert ids(heard.choose(items)) == expected
    more = messages(*(f"later {name}" for name in later), at=100.0)
    assert ids(heard.choose([*items, *more])) == expected + ids(more)
    if is_cut and history:
        older = messages("x", "y", at=-100.0)
        assert ids(heard.choose([*older, *items])) == expected
    if not is_cut:
        assert len(heard.heard) + len(heard.unheard) <= min(len(known), len(history))


@given(_names, st.sets(st.sampled_from("abcdefghijkl")), st.integers(0, 12))
def test_a_history_that_has_left_its_beginning_behind(history: list[str], known: set[str], gone: int) -> None:
    """What is there still is chosen as before."""
    items = messages(*history)
    heard = Heard.of(items, known)
    assert ids(heard.choose(items[gone:])) == [name for name in history[gone:] if name in known]


def test_an_output_that_was_made_up_is_told_only_with_its_call() -> None:
    """An agent that has not heard of a call is not told that its outcome is unknown."""

    def call(name: str) -> list[ChatItem]:
        output = FunctionCallOutput(id=name + INTERRUPTED_SUFFIX, call_id=name, output="?", is_error=True)
        return [FunctionCall(id=f"id {name}", call_id=name, name="t", arguments="{}"), output]

    history = [*call("a"), *call("b")]
    chosen = Heard(after="id b", heard=frozenset({"id b"})).choose(history)
    assert ids(chosen) == ["id b", "b" + INTERRUPTED_SUFFIX]


def test_a_call_that_was_running_is_everybody_s_business() -> None:
    """Whoever has the word is told of it, though another agent made it: the tool is not to run again."""
    call = FunctionCall(id="id a", call_id="a", name="t", arguments="{}")
    output = FunctionCallOutput(id="a" + INTERRUPTED_SUFFIX, call_id="a", output="?", is_error=True)
    history = [call, output, *messages("m")]
    heard = Heard(after="m")
    assert heard.choose(history) == []
    assert heard.choose(history, {"a"}) == [call, output]


@pytest.mark.parametrize("noted", [None, 3, {}, {"after": 3}, {"after": "a", "heard": 3, "unheard": [4]}, {"at": "x"}])
def test_notes_that_make_no_sense_are_read_as_far_as_they_do(noted: Any) -> None:
    """What makes no sense is read as far as it does."""
    assert isinstance(Heard.read(noted), Heard)


def test_what_was_brought_stays_where_it_was() -> None:
    """In front, between and behind; LiveKit's own items are left to LiveKit."""
    history = messages("a", "b", "c")
    own: list[ChatItem] = [
        ChatMessage(id="lk.agent_task.instructions", role="system", content=["secret"]),
        AgentHandoff(id="h", new_agent_id="x"),
        AgentConfigUpdate(id="u", instructions="secret"),
    ]
    context: list[ChatItem] = [
        own[0],
        *messages("1", "2"),
        history[0],
        *messages("3"),
        history[2],
        own[1],
        *messages("4"),
    ]
    brought = brought_into(context, ids(history))
    assert [(one.after, one.item.id) for one in brought] == [(None, "1"), (None, "2"), ("a", "3"), ("c", "4")]
    heard = Heard.of(history, {"a", "c"}).choose(history)
    assert ids(composed(heard, brought, 10.0)) == ["1", "2", "a", "3", "c", "4"]


def test_a_message_whose_words_are_not_known_yet() -> None:
    """A realtime model has it in the context before it is transcribed: nobody else is to read an empty message."""
    empty: list[ChatItem] = [ChatMessage(role="user", content=[]), ChatMessage(role="user", content=[""])]
    assert brought_into(empty, ()) == ()


def test_an_item_of_the_history_is_not_brought_again() -> None:
    """What is in the history is not brought into it again; what stood behind a lost item comes first."""
    history = messages("a", "b")
    brought = [Brought(None, history[1]), Brought("lost", messages("1")[0]), Brought("b", messages("2", at=50.0)[0])]
    context = composed(history, brought, 10.0)
    assert ids(context) == ["1", "a", "b", "2"]
    assert context[-1].created_at == 10.0
