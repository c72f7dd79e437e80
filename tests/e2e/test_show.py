"""`conversation-actors show`: a conversation as people and as programs read it."""

import json
from pathlib import Path

import pytest

from tests.e2e.commands import development_stack, run, run_client

FILL = """
conversation = await client.open("support-42")
await conversation.join("alice", name="Alice")
await conversation.set_attributes({"language": "de"})
await conversation.append(Message(role="user", content="Where is [bold]my order[/bold]?"))
await conversation.append(
    FunctionCall(call_id="c", name="look_up", arguments="{}"), FunctionCallOutput(call_id="c", output="None such.")
)
print("{}")
"""


@pytest.mark.timeout(240)
def test_a_conversation_is_shown(tmp_path: Path) -> None:
    """Participants, attributes and history, as they are; JSON has the same; an unknown id is one sentence."""
    with development_stack(tmp_path / "data") as (_, variables):
        run_client(FILL, variables)
        people = run("show", "support-42", **variables)
        program = run("show", "support-42", "--json", **variables)
        unknown = run("show", "nobody", **variables)

    assert people.returncode == 0, people.stderr
    for text in ("support-42", "alice", "language", "Where is [bold]my order[/bold]?", "look_up", "None such."):
        assert text in people.stdout
    assert "\x1b" not in people.stdout
    told = json.loads(program.stdout)
    assert [item["type"] for item in told["items"]] == ["message", "function_call", "function_call_output"]
    assert told["attributes"] == {"language": "de"}
    assert told["activation"]["epoch"] == told["epoch"]
    assert unknown.returncode == 1
    assert "nobody" in unknown.stderr
    assert "Traceback" not in unknown.stderr


@pytest.mark.timeout(60)
def test_without_a_cluster_it_says_so() -> None:
    """Nothing listens at the address: one sentence that tells what to do, exit code 1, at once."""
    ran = run("show", "support-42", RAY_ADDRESS="127.0.0.1:1", CONVERSATION_REDIS_URL="redis://127.0.0.1:1")

    assert ran.returncode == 1
    assert "conversation-actors dev" in ran.stderr
    assert "Traceback" not in ran.stderr


@pytest.mark.timeout(60)
def test_without_settings_it_says_so() -> None:
    """No Redis configured: the sentence names the variable."""
    ran = run("show", "support-42")

    assert ran.returncode == 2
    assert "CONVERSATION_REDIS_URL" in ran.stderr
