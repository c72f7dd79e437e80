"""`conversation-actors show`: a conversation as people and as programs read it."""

import json
import secrets
from typing import Any

import pytest
from redis import Redis

from conversation_actors.store.keys import Keys
from tests.e2e.commands import run, run_client
from tests.support.ray_cluster import RayCluster, program_environment
from tests.support.servers import Server

FILL = """
conversation = await client.open({conversation_id!r})
await conversation.join("alice", name="Alice")
await conversation.set_attributes({{"language": "de"}})
await conversation.append(Message(role="user", content="Where is [bold]my order[/bold]?"))
await conversation.append(
    FunctionCall(call_id="c", name="look_up", arguments="{{}}"), FunctionCallOutput(call_id="c", output="None such.")
)
await conversation.passivate()
print("{{}}")
"""


@pytest.mark.timeout(240)
def test_a_conversation_is_shown(session_cluster: RayCluster, redis: Server) -> None:
    """Participants, attributes and history, as they are; JSON has the same; an unknown id is one sentence."""
    conversation_id = f"support-{secrets.token_hex(4)}"  # short, so that no line of the table is folded
    variables = program_environment(RAY_ADDRESS=session_cluster.address, CONVERSATION_REDIS_URL=redis.url)
    run_client(FILL.format(conversation_id=conversation_id), variables)
    before = stored(redis.url, conversation_id)
    # No cluster is there: looking is not using, and nothing could be started.
    alone = {**variables, "RAY_ADDRESS": "127.0.0.1:1"}
    people = run("show", conversation_id, **alone)
    program = run("show", conversation_id, "--json", **alone)
    unknown = run("show", "nobody", **alone)
    after = stored(redis.url, conversation_id)

    assert people.returncode == 0, people.stderr
    for text in (conversation_id, "alice", "language", "Where is [bold]my order[/bold]?", "look_up", "None such."):
        assert text in people.stdout
    assert "\x1b" not in people.stdout
    assert people.stderr == program.stderr == ""
    told = json.loads(program.stdout)
    assert [item["type"] for item in told["items"]] == ["message", "function_call", "function_call_output"]
    assert told["attributes"] == {"language": "de"}
    assert told["activation"]["epoch"] == told["epoch"] == 1
    assert unknown.returncode == 1
    assert unknown.stderr == "conversation-actors: no conversation 'nobody'\n"
    assert before[0] == after[0] == 1
    assert before[1] >= after[1]


def stored(url: str, conversation_id: str) -> tuple[int, int]:
    """The epoch of the conversation, and the milliseconds that it has to live."""
    client: Any = Redis.from_url(url)
    key = Keys().conversation(conversation_id).meta
    told = int(client.hget(key, "epoch")), client.pttl(key)
    client.close()
    return told


@pytest.mark.timeout(60)
def test_without_redis_it_says_so() -> None:
    """Nothing listens at the address: one sentence, exit code 1, at once."""
    ran = run("show", "support-42", CONVERSATION_REDIS_URL="redis://127.0.0.1:1")

    assert ran.returncode == 1
    assert ran.stderr.startswith("conversation-actors: Redis cannot do read now")
    assert ran.stderr.count("\n") == 1


@pytest.mark.timeout(60)
def test_without_settings_it_says_so() -> None:
    """No Redis configured: the sentence names the variable."""
    ran = run("show", "support-42")

    assert ran.returncode == 2
    assert "CONVERSATION_REDIS_URL" in ran.stderr
