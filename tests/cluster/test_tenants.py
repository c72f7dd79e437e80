"""Two tenants use the same ids: they share a cluster and a Redis, and nothing else."""

import pytest
import ray

from conversation_actors import ConversationNotFoundError, InvalidInputError, Settings
from conversation_actors.runtime import NAMESPACE, actor_name
from tests.cluster.conftest import Connect
from tests.support.observation import texts, user
from tests.support.servers import Server


async def test_tenants_do_not_meet(connect: Connect, redis: Server, conversation_id: str) -> None:
    """Neither the conversation, nor its owner, nor a listing of one shows to the other; each deletes its own."""
    one, other = await connect(redis.url, tenant="acme"), await connect(redis.url, tenant="umbrella")
    first, second = await one.open(conversation_id), await other.open(conversation_id)
    await first.join("alice")
    await first.append(user("acme's"))
    await second.append(user("umbrella's"))
    assert texts((await first.snapshot(fresh=True)).items) == ["acme's"]
    assert texts((await second.snapshot(fresh=True)).items) == ["umbrella's"]
    facts = await first.info(), await second.info()
    assert [info.tenant for info in facts] == ["acme", "umbrella"]
    assert facts[0].pid != facts[1].pid
    assert [found async for found in other.list(participant="alice")] == []
    await one.delete(conversation_id)
    with pytest.raises(ConversationNotFoundError):
        await first.append(user("gone"))
    assert (await second.append(user("still here"))).seq == 2


@pytest.mark.parametrize("hashed", [False, True])
async def test_actor_name_is_the_way_to_an_actor(
    connect: Connect, redis: Server, conversation_id: str, *, hashed: bool
) -> None:
    """By the settings that its client has; with hashed names nothing of the id is in it."""
    client = await connect(redis.url, tenant="acme", hashed_names=hashed)
    conversation = await client.open(conversation_id)
    name = actor_name(conversation_id, Settings(tenant="acme", hashed_names=hashed))
    assert (conversation_id in name) is not hashed
    view = await ray.get_actor(name, namespace=NAMESPACE).read.remote(fresh=True)
    assert view.epoch == (await conversation.info()).epoch
    with pytest.raises(ValueError, match="Failed to look up actor"):
        ray.get_actor(actor_name(conversation_id, Settings(hashed_names=hashed)), namespace=NAMESPACE)


def test_names_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no settings are given; names of tenants cannot be told wrongly from ids."""
    assert actor_name("a") == "conversation:default:a"
    monkeypatch.setenv("CONVERSATION_TENANT", "acme")
    assert actor_name("a") == "conversation:acme:a"
    monkeypatch.setenv("CONVERSATION_HASHED_NAMES", "true")
    assert actor_name("a") == actor_name("a") != actor_name("b")
    assert len(actor_name("a")) == len("conversation:") + 64
    for wrong in ("", "a:b", "a{b}", "-", "x" * 65, "é"):
        with pytest.raises(InvalidInputError, match="tenant"):
            Settings(tenant=wrong)
