"""What was said, measured and done in a call."""

import json
from typing import Any

import pytest

from conversation_actors.calls.happenings import TURN_COMPLETED
from conversation_actors.calls.samples import MOST_VALUES, Sample
from conversation_actors.calls.talk import MOST_TOOLS, OTHERS
from conversation_actors.items import StoredItem
from conversation_actors.state import AppendItems, ClearHistory, RemoveItems, SetSummary
from tests.support.call_entries import Conversation


def begun() -> Conversation:
    """A call that goes on."""
    call = Conversation()
    call.take(0, "job-1")
    return call


def turns(call: Conversation) -> list[dict[str, Any]]:
    """The data of all turns."""
    return [dict(one.data) for one in call.told() if one.type == TURN_COMPLETED]


def spoken(started: float, stopped: float, **more: float) -> dict[str, float]:
    """What LiveKit measures of a message."""
    return {"started_speaking_at": started, "stopped_speaking_at": stopped, **more}


def test_a_turn_has_what_was_asked_and_answered() -> None:
    """All that a person said since the agent spoke last, and the answer."""
    call = begun()
    call.say(1, "a0", "Hello!", role="assistant")
    call.say(2, "u1", "Where is", extra={"participant": {"identity": "ada", "device": None}})
    call.say(3, "u2", "my order?", extra={"participant": {"identity": "ada", "device": None}})
    call.say(4, "a1", "On its way.", role="assistant", interrupted=True, metrics={"e2e_latency": 0.75})
    call.say(5, "a2", "Anything else?", role="assistant")

    (turn,) = turns(call)

    assert turn == {
        "turn": 1,
        "user": {"item_ids": ["u1", "u2"], "text": "Where is\nmy order?", "identity": "ada"},
        "agent": {"item_id": "a1", "text": "On its way."},
        "interrupted": True,
        "latency": 0.75,
    }
    assert (call.record().messages, call.record().turns, call.record().interruptions) == (5, 1, 1)


def test_an_item_that_comes_again_counts_once() -> None:
    """A session tells its history again when the conversation may have missed some of it."""
    call = begun()
    call.say(1, "u1", "Hello")
    call.say(2, "a1", "Hi", role="assistant")
    call.say(3, "u1", "Hello, hello")
    call.say(4, "a1", "Hi there", role="assistant")

    record = call.record()

    assert (record.messages, record.turns) == (2, 1)


def test_instructions_and_other_agents_words_are_no_messages() -> None:
    """Only people and the agent of the role `agent` count."""
    call = begun()
    call.say(1, "s1", "Be kind.", role="system")
    call.say(2, "u1", "Hello", agent_role="interpreter")
    call.say(3, "a1", "Hi", role="assistant", agent_role="interpreter")
    call.append(4, {"type": "agent_handoff", "id": "h1", "new_agent_id": "clerk"})

    record = call.record()

    assert (record.messages, record.turns) == (0, 0)


def test_speech_is_counted_by_speaker() -> None:
    """In seconds, by identity if that is known."""
    call = begun()
    call.say(1, "u1", metrics=spoken(10.0, 12.5), extra={"participant": {"identity": "ada", "device": "web"}})
    call.say(2, "u2", metrics=spoken(13.0, 14.0))
    call.say(3, "a1", role="assistant", metrics=spoken(20.0, 26.0))
    call.say(4, "a2", role="assistant", metrics=spoken(30.0, 31.0))

    assert call.record().spoke == {"ada": 2.5, "user": 1.0, "agent": 7.0}


def test_nobody_spoke_is_not_the_same_as_nobody_measured() -> None:
    """None says that it is not known."""
    typed, silent = begun(), begun()
    typed.say(1, "u1")
    silent.say(1, "u1", metrics=spoken(5.0, 5.0))

    assert typed.record().spoke is None
    assert silent.record().spoke == {"user": 0.0}


@pytest.mark.parametrize("metrics", [None, [], {"e2e_latency": "slow", "llm_node_ttft": True, "tts_node_ttfb": -1.0}])
def test_what_is_no_measure_counts_for_nothing(metrics: object) -> None:
    """Whoever has written it."""
    call = begun()
    call.say(1, "a1", role="assistant", metrics=metrics)

    assert call.record().latency == {}


def test_latency_has_the_values_of_all_turns() -> None:
    """The median of an even number is between two; the 95th percentile is one of the values."""
    call = begun()
    for number in range(1, 21):
        metrics = {"e2e_latency": number / 10, "llm_node_ttft": 0.2, "provider_request_ids": ["x"]}
        call.say(number, f"a{number}", role="assistant", metrics=metrics)
        call.say(number, f"u{number}", metrics={"transcription_delay": 0.1})

    latency = call.record().latency

    assert set(latency) == {"e2e_latency", "llm_node_ttft", "transcription_delay"}
    assert (latency["e2e_latency"].turns, latency["e2e_latency"].median, latency["e2e_latency"].p95) == (20, 1.05, 1.9)
    assert latency["e2e_latency"].values == tuple(number / 10 for number in range(1, 21))


def test_a_very_long_call_has_an_even_sample_of_its_latency() -> None:
    """Bounded, in order, and near to all of them."""
    sample, total = Sample(), 10 * MOST_VALUES + 3
    for number in range(total):
        sample.add(number / total)

    latency = sample.figures()

    assert latency.turns == total
    assert MOST_VALUES // 2 <= len(latency.values) <= MOST_VALUES
    assert list(latency.values) == sorted(latency.values)
    assert latency.median == pytest.approx(0.5, abs=0.01)
    assert latency.p95 == pytest.approx(0.95, abs=0.01)


def test_tools_are_counted_by_name() -> None:
    """With their failures, whether or not the output has the name."""
    call = begun()
    for number, (name, is_error) in enumerate([("look_up", False), ("look_up", True), ("refund", True)]):
        called = {"type": "function_call", "id": f"c{number}", "call_id": f"call{number}", "name": name}
        output = {"type": "function_call_output", "id": f"o{number}", "call_id": f"call{number}", "output": "…"}
        call.append(number, {**called, "arguments": "{}"})
        call.append(number, {**output, "is_error": is_error})
        call.append(number, {**output, "is_error": is_error, "output": "again"})

    tools = {tool.name: (tool.calls, tool.failures) for tool in call.record().tools}

    assert tools == {"look_up": (2, 1), "refund": (1, 1)}


def test_tools_of_other_roles_are_counted_too() -> None:
    """They were used in the call."""
    call = begun()
    fields = {"type": "function_call", "id": "c1", "call_id": "c1", "name": "translate", "arguments": "{}"}
    call.append(1, {**fields, "agent_role": "interpreter"})

    assert call.record().tools[0].name == "translate"


def test_very_many_tools_are_counted_together() -> None:
    """The record stays bounded."""
    call = begun()
    for number in range(MOST_TOOLS + 5):
        name = f"tool_{number}"
        call.append(number, {"type": "function_call", "id": name, "call_id": name, "name": name, "arguments": "{}"})

    tools = {tool.name: tool.calls for tool in call.record().tools}

    assert len(tools) == MOST_TOOLS + 1
    assert tools[OTHERS] == 5


def test_an_item_that_cannot_be_read_counts() -> None:
    """Its kind is known, and nothing else of it."""
    call = begun()
    call.say(1, "u1", "Hello")
    call.ask(2, AppendItems((StoredItem("a1", "message", "assistant", "", b"{damaged"),)))

    assert call.record().messages == 2
    assert turns(call)[0]["agent"] == {"item_id": "a1", "text": ""}


@pytest.mark.parametrize("command", [RemoveItems(("u1",)), ClearHistory()])
def test_words_that_are_taken_out_are_not_told(command: RemoveItems | ClearHistory) -> None:
    """That there was a turn is, and what is said later."""
    call = begun()
    call.say(1, "u1", "My card is 4242")
    call.ask(2, command)
    call.say(3, "a1", "Thank you", role="assistant")
    call.say(4, "u2", "Bye")
    call.say(5, "a2", "Bye", role="assistant")

    first, second = turns(call)

    assert (first["user"]["text"], first["user"]["item_ids"]) == (None, ["u1"])
    assert second["user"]["text"] == "Bye"


def test_a_removal_of_other_items_takes_no_words_away() -> None:
    """Only those that were asked for."""
    call = begun()
    call.say(1, "u0", "Hello")
    call.say(1, "a0", "Hi", role="assistant")
    call.say(2, "u1", "Bye")
    call.ask(3, RemoveItems(("u0",)))
    call.say(4, "a1", "Bye", role="assistant")

    assert turns(call)[1]["user"]["text"] == "Bye"


def test_the_last_summary_of_the_call_is_in_the_record() -> None:
    """A history that is cleared takes it along."""
    call, cleared = begun(), begun()
    for one in (call, cleared):
        one.say(1, "u1")
        one.ask(2, SetSummary("Ada waits.", 1))
        one.ask(3, SetSummary("Ada waits for an order.", 2))
    cleared.ask(4, ClearHistory())

    assert call.record().summary == "Ada waits for an order."
    assert cleared.record().summary is None


def test_errors_of_models_are_counted() -> None:
    """Of every role, each time one is noted."""
    call = begun()
    for number in range(3):
        call.note(number, "livekit.error", {"type": "APIError", "at": number})
    call.note(5, "livekit.error", {"type": "APIError", "at": 5}, role="interpreter")
    call.note(6, "livekit.error", None)

    assert call.record().errors == 4


def test_a_very_long_question_is_told_in_part() -> None:
    """What waits for an answer is bounded."""
    call = begun()
    for number in range(100):
        call.say(number, f"u{number}", "x" * 1000)
    call.say(200, "a1", role="assistant")

    (turn,) = turns(call)

    assert len(json.dumps(turn)) < 10_000
    assert turn["user"]["text"].startswith("x" * 1000 + "\n")
