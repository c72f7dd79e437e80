"""The transcript file: what it must hold, and what a bad one is told."""

import json
from pathlib import Path
from typing import Any

import pytest

from agent_worker.example.agent import SupportAgent
from agent_worker.offline.transcript import MAX_BYTES, Transcript, load, parse
from conversation_actors.errors import InvalidInputError


def test_the_written_call_is_long_enough_to_be_killed_in(transcript: Transcript) -> None:
    """At least 40 messages and 8 tool calls with three tools, errors and parallel calls among them."""
    uses = [use for turn in transcript.turns for step in turn.steps for use in step.calls]
    assert 2 * len(transcript.turns) >= 40
    assert len(uses) >= 8
    assert len({use.name for use in uses}) == 3
    assert any(use.is_error for use in uses)
    assert any(len(step.calls) > 1 for turn in transcript.turns for step in turn.steps)


async def test_the_agents_tools_return_what_the_transcript_says(transcript: Transcript) -> None:
    """The tools compute: each call's output, errors included, is the transcript's."""
    agent = SupportAgent()
    for use in (use for turn in transcript.turns for step in turn.steps for use in step.calls):
        tool: Any = getattr(agent, use.name)
        try:
            output, failed = await tool(**use.arguments), False
        except Exception as error:  # noqa: BLE001  # the error is what is looked at
            output, failed = str(error), True
        assert (output, failed) == (use.output, use.is_error)


def test_a_position_is_found_whatever_the_punctuation(transcript: Transcript) -> None:
    """A recogniser writes other commas and capitals than the author did."""
    assert transcript.position("WEDNESDAY") == 3
    assert transcript.position("tom at number 12 he's always in") == 11
    assert transcript.position("something else") is None


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"title": "x",\n "turns": [}', "line 2, column 12"),
        ('{"title": "x", "turns": []}', "turns:"),
        ('{"title": "x", "turns": [{"user": "a"}]}', "turns.0.reply"),
        ('{"title": "x", "turns": [{"user": "a", "reply": "b", "step": []}]}', "turns.0.step"),
        ('{"title": "x", "turns": [{"user": "a", "reply": 3}]}', "turns.0.reply"),
        ('{"title": "x", "turns": [{"user": "A!", "reply": "b"}, {"user": "a", "reply": "c"}]}', "turns.1.user"),
        ("[" * 100_000, "nested too deep"),
        ("[]", "transcript"),
    ],
)
def test_a_bad_file_is_told_by_line_or_field(text: str, told: str) -> None:
    """Bad JSON by line and column, bad content by field; always with the file's name."""
    with pytest.raises(InvalidInputError, match="transcript call") as caught:
        parse(text, "call.json")
    assert told in str(caught.value)


def test_a_missing_huge_or_binary_file_is_told_by_name(tmp_path: Path) -> None:
    """Whatever is wrong with a file, the error is typed and names it."""
    huge, binary = tmp_path / "huge.json", tmp_path / "binary.json"
    huge.write_text(json.dumps("x" * MAX_BYTES))
    binary.write_bytes(b"\xff\xfe")
    for path in (huge, binary, tmp_path / "missing.json", tmp_path):
        with pytest.raises(InvalidInputError, match=path.name):
            load(path)
