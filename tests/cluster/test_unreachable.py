"""What is missing is said in one sentence; what was deleted is not there."""

import asyncio
import socket
import subprocess

import pytest

from conversation_actors import ConversationClient, ConversationNotFoundError
from tests.cluster.conftest import Connect
from tests.support.observation import gone, pid_of, start_program, texts, user
from tests.support.ray_cluster import RayCluster
from tests.support.servers import HOST, Server


async def outcome(program: "subprocess.Popen[str]") -> list[str]:
    """What a program printed."""
    try:
        output, _ = await asyncio.to_thread(program.communicate, timeout=60)
    finally:
        program.kill()
        program.communicate()
    return output.splitlines()


async def test_address_that_leads_nowhere_is_told_in_one_sentence(
    redis: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the address leads nowhere, the client says so in one sentence, in its time-out."""
    monkeypatch.setenv("CONVERSATION_REDIS_URL", redis.url)
    monkeypatch.setenv("CONVERSATION_TIMEOUT_CONNECT", "8")
    with socket.socket() as taken:
        taken.bind((HOST, 0))  # and never listens: nobody else can
        monkeypatch.setenv("RAY_ADDRESS", f"{HOST}:{taken.getsockname()[1]}")
        kind, *sentences = await outcome(start_program("outsider"))
    assert kind == "ClusterUnavailableError"
    assert len(sentences) == 1
    assert "RAY_ADDRESS" in sentences[0]


async def test_missing_redis_url_is_told_by_its_variable(cluster: RayCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a Redis URL the client says which variable to set."""
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    kind, *sentences = await outcome(start_program("outsider"))
    assert kind == "InvalidInputError"
    assert len(sentences) == 1
    assert "CONVERSATION_REDIS_URL" in sentences[0]


async def test_handles_of_a_deleted_conversation_say_that_it_is_gone(
    client: ConversationClient, connect: Connect, conversation_id: str
) -> None:
    """Handles of a deleted conversation say that it is gone; opened anew it is empty, and its seq goes on."""
    first = await client.open(conversation_id)
    second = await (await connect()).open(conversation_id)
    await first.append(user("one"))
    await first.append(user("two"))
    pid = await pid_of(first)
    await client.delete(conversation_id)
    await gone(pid)
    for handle in (first, second):
        with pytest.raises(ConversationNotFoundError):
            await handle.append(user("too late"))
        with pytest.raises(ConversationNotFoundError):
            await handle.snapshot()
    with pytest.raises(ConversationNotFoundError):
        await client.delete(conversation_id)
    with pytest.raises(ConversationNotFoundError):
        await client.open(conversation_id, create=False)
    again = await (await connect()).open(conversation_id)
    receipt = await again.append(user("anew"))
    assert receipt.seq > 2
    assert receipt.epoch > 1
    assert texts(again.items) == ["anew"]


async def test_deleted_and_opened_anew_by_an_old_handle(client: ConversationClient, conversation_id: str) -> None:
    """The handle that knew the old life shows the new one after it is opened again."""
    conversation = await client.open(conversation_id)
    await conversation.append(user("one"))
    await client.delete(conversation_id)
    again = await client.open(conversation_id)
    await again.append(user("anew"))
    assert texts((await again.snapshot()).items) == ["anew"]
    assert texts(again.items) == ["anew"]
