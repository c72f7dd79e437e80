"""The transcript's script: decided from one request alone, and wrong where history is missing."""

from typing import Any

import pytest

from agent_worker.offline.script import ChatRequest, Reply, TranscriptScript
from agent_worker.offline.transcript import Transcript

TOOLS = frozenset({"look_up_order", "reschedule_delivery", "add_delivery_note"})
Messages = list[dict[str, Any]]


def _ask(transcript: Transcript, messages: Messages, *, tools: frozenset[str] = TOOLS, allowed: bool = True) -> Reply:
    return TranscriptScript(transcript).reply(ChatRequest(messages, tools, allowed))


def _user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def _play(transcript: Transcript, turns: int) -> Messages:
    """The messages of the call after so many turns, made by asking the script itself."""
    messages: Messages = [{"role": "system", "content": "Be brief."}]
    for turn in transcript.turns[:turns]:
        messages.append(_user(turn.user))
        outputs = iter(use for step in turn.steps for use in step.calls)
        while (reply := _ask(transcript, messages)).calls:
            calls = [
                {"id": call.call_id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
                for call in reply.calls
            ]
            messages.append({"role": "assistant", "content": reply.text or None, "tool_calls": calls})
            messages += [
                {"role": "tool", "tool_call_id": call.call_id, "content": next(outputs).output} for call in reply.calls
            ]
        assert reply.text == turn.reply
        messages.append({"role": "assistant", "content": reply.text})
    return messages


def test_the_whole_call_plays(transcript: Transcript) -> None:
    """With everything in the request, every answer is the transcript's."""
    assert len(_play(transcript, len(transcript.turns))) > 70


@pytest.mark.parametrize("gone", ["user", "assistant", "tool"])
def test_a_hole_in_the_history_is_heard(transcript: Transcript, gone: str) -> None:
    """One missing user message, answer, or tool pair makes the next answer a wrong one."""
    messages = [*_play(transcript, 6), _user(transcript.turns[6].user)]
    kept = [
        message
        for index, message in enumerate(messages)
        if index < 4 or index > 10 or not (message["role"] == gone or (gone == "tool" and message.get("tool_calls")))
    ]
    assert len(kept) < len(messages)
    assert "lost the thread" in _ask(transcript, kept).text


def test_a_doubled_or_displaced_turn_is_heard(transcript: Transcript) -> None:
    """Words that were repeated, or answered in another order, are not taken as the call that was held."""
    messages = [*_play(transcript, 3), _user(transcript.turns[3].user)]
    assert "2 times" in _ask(transcript, [*messages, messages[-1]]).text
    swapped = [messages[0], *messages[3:6], *messages[1:3], *messages[6:]]
    assert "lost the thread" in _ask(transcript, swapped).text


def test_unknown_words_get_a_truthful_answer(transcript: Transcript) -> None:
    """The fallback says how many messages it was sent, which is what a lost history changes."""
    reply = _ask(transcript, [*_play(transcript, 2), _user("Do you sell cars?")])
    assert reply.text == "I have no line for that. I was sent 8 messages, 3 from you."


def test_no_words_yet_get_the_greeting(transcript: Transcript) -> None:
    """An agent that speaks first says the greeting."""
    assert _ask(transcript, [{"role": "system", "content": "x"}]).text == transcript.greeting


def test_an_answered_turn_is_not_answered_again(transcript: Transcript) -> None:
    """A model run twice for one turn can be heard."""
    assert _ask(transcript, _play(transcript, 4)).text == "I have answered that already."


def test_an_unknown_outcome_is_said_and_the_call_goes_on(transcript: Transcript) -> None:
    """After an interrupted tool call the answer says so; later turns take the turn as it was."""
    messages = [*_play(transcript, 6), _user(transcript.turns[6].user)]
    call = _ask(transcript, messages).calls[0]
    function = {"name": call.name, "arguments": call.arguments}
    messages.append(
        {"role": "assistant", "tool_calls": [{"id": call.call_id, "type": "function", "function": function}]}
    )
    messages.append({"role": "tool", "tool_call_id": call.call_id, "content": "interrupted; outcome unknown"})
    reply = _ask(transcript, messages)
    assert "don't know whether it went through" in reply.text
    assert not reply.calls
    messages += [{"role": "assistant", "content": reply.text}, _user(transcript.turns[7].user)]
    assert _ask(transcript, messages).text == transcript.turns[7].reply


def test_tools_are_called_only_if_they_may_be(transcript: Transcript) -> None:
    """`tool_choice: none` gives the words at once; a tool that was not offered is missed aloud."""
    messages = [*_play(transcript, 1), _user(transcript.turns[1].user)]
    assert _ask(transcript, messages, allowed=False) == Reply(transcript.turns[1].reply)
    assert "look_up_order" in _ask(transcript, messages, tools=frozenset()).text


def test_parallel_calls_that_are_half_done_are_completed(transcript: Transcript) -> None:
    """Only the call that is missing is asked for."""
    messages = [*_play(transcript, 16), _user(transcript.turns[16].user)]
    first, second = _ask(transcript, messages).calls
    function = {"name": first.name, "arguments": first.arguments}
    messages.append(
        {"role": "assistant", "tool_calls": [{"id": first.call_id, "type": "function", "function": function}]}
    )
    output = transcript.turns[16].steps[0].calls[0].output
    messages.append({"role": "tool", "tool_call_id": first.call_id, "content": output})
    assert _ask(transcript, messages) == Reply("", (second,))
