"""A conversation that Redis has lost comes back with what the back end has of it; client, owners and HTTP are real.

The store is this process's memory; nothing is archived.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from aiohttp import web
from pydantic import SecretStr

from conversation_actors import (
    ConversationClient,
    ConversationHandle,
    ConversationNotFoundError,
    HistoryLimits,
    Message,
    Settings,
)
from conversation_actors.backend.models import Message as Told
from conversation_actors.client.refilling import state_of
from conversation_actors.errors import BackendUnavailableError
from conversation_actors.state import ConversationState, Limits
from conversation_actors.store import forget_memory
from tests.support.asked_backend import AskedBackend, answers, asked_backend, backend_settings, called, hang, said

NAME = "refilled"
SHORT = timedelta(milliseconds=300)


@pytest.fixture(autouse=True)
async def _forgotten() -> AsyncIterator[None]:
    """Nothing that one test stores is there for the next one."""
    yield
    forget_memory(NAME)


@pytest.fixture
async def backend() -> AsyncIterator[AskedBackend]:
    """A back end that knows of no conversation."""
    async with asked_backend() as made:
        yield made


def client_of(backend: AskedBackend, *, history: HistoryLimits | None = None, **values: Any) -> ConversationClient:
    """A client of the tests' store and this back end."""
    settings = Settings(
        redis_url=SecretStr(f"memory://{NAME}"),
        backend=backend_settings(backend.url, **values),
        history=history or HistoryLimits(),
    )
    return ConversationClient(settings)


def ids(handle: ConversationHandle) -> list[str]:
    """Ids of a handle's items."""
    return [item.id for item in handle.items]


def read(*messages: dict[str, Any], **limits: int) -> ConversationState:
    """What comes of messages."""
    return state_of([Told.model_validate(one) for one in messages], Limits(**limits), now=2000.0)


def window(state: ConversationState) -> list[str]:
    """Ids of a state's items."""
    return [item.id for item in state.window]


@pytest.mark.parametrize("create", [True, False])
@pytest.mark.parametrize("wait", [True, False])
async def test_it_comes_back_with_its_messages(backend: AskedBackend, create: bool, wait: bool) -> None:  # noqa: FBT001
    """With their ids, in their order, as they were; and it goes on."""
    backend.messages["c"] = [said(1), called(1), called(1, is_output=True), said(2)]
    async with client_of(backend) as client:
        handle = await client.open("c", create=create, wait=wait)
        assert ids(handle) == ["u1", "f1", "o1", "u2"]
        assert [item.to_dict() for item in handle.items] == [one["item"] for one in backend.messages["c"]]
        assert (handle.seq, client.failures) == (4, {})
        await handle.append(Message(id="u3", role="user", content="still there?"))
        await handle.append(Message(id="u1", role="user", content="changed"))
        assert ids(handle) == ["u1", "f1", "o1", "u2", "u3"]
        facts = await handle.info()
        assert (facts.total_items, facts.has_counted_all) == (5, False)
    assert len(backend.asked("GET", "/base/v1/messages")) == 1


async def test_what_the_store_has_is_asked_of_nobody(backend: AskedBackend) -> None:
    """Also if the back end has other messages."""
    async with client_of(backend) as client:
        await (await client.open("c")).append(Message(id="mine", role="user", content="hello"))
        backend.messages["c"] = [said(1)]
        backend.requests.clear()
    async with client_of(backend) as client:
        assert ids(await client.open("c")) == ["mine"]
        assert ids(await client.open("c", wait=False)) == ["mine"]
    assert backend.requests == []


async def test_what_nobody_has_begins_anew_or_is_not_there(backend: AskedBackend) -> None:
    """As without a back end."""
    async with client_of(backend) as client:
        with pytest.raises(ConversationNotFoundError):
            await client.open("c", create=False)
        assert ids(await client.open("c")) == []
        assert client.failures == {}


async def test_several_who_open_it_get_one_conversation(backend: AskedBackend) -> None:
    """Each asks the back end, and one of them brings it back; nobody's message is lost."""
    may_answer, text = asyncio.Event(), json.dumps({"messages": [said(1), said(2)]})

    async def together(request: web.Request) -> web.StreamResponse:
        if len(backend.requests) == 6:
            may_answer.set()
        await may_answer.wait()
        return await answers(200, text)(request)

    backend.answer = together
    clients = [client_of(backend) for _ in range(6)]
    try:
        for one in clients:
            await one.__aenter__()
        opened = await asyncio.gather(*(one.open("c", wait=bool(n % 2)) for n, one in enumerate(clients)))
        await asyncio.gather(
            *(one.append(Message(id=f"m{n}", role="user", content="hello")) for n, one in enumerate(opened))
        )
        last = await opened[0].snapshot(fresh=True)
        assert [item.id for item in last.items[:2]] == ["u1", "u2"]
        assert sorted(item.id for item in last.items[2:]) == [f"m{n}" for n in range(6)]
    finally:
        for one in clients:
            await one.aclose()


async def test_without_messages_to_ask_for_nobody_is_asked(backend: AskedBackend) -> None:
    """`CONVERSATION_BACKEND_MESSAGES=0` turns it off."""
    backend.messages["c"] = [said(1)]
    async with client_of(backend, messages=0) as client:
        assert ids(await client.open("c")) == []
    assert backend.requests == []


@pytest.mark.parametrize("answer", [answers(500), answers(200, "{}"), hang])
async def test_a_back_end_that_does_not_answer_is_gone_without(backend: AskedBackend, answer: Any) -> None:
    """Unless it is required, or nothing is to be created: then whether there is something, nobody can say."""
    backend.answer = answer
    async with client_of(backend, recall_timeout=SHORT) as client:
        with pytest.raises(BackendUnavailableError):
            await client.open("c", create=False)
        assert ids(await client.open("c")) == []
        assert client.failures == {"backend": 1}
    async with client_of(backend, recall_timeout=SHORT, required=True) as client:
        assert ids(await client.open("c")) == []  # the store has it
        for wait in (True, False):
            with pytest.raises(BackendUnavailableError):
                await client.open("other", wait=wait)
    backend.answer = None
    async with client_of(backend, required=True) as client:
        backend.messages["other"] = [said(1)]
        assert ids(await client.open("other")) == ["u1"]


async def test_what_is_no_item_is_as_good_as_no_answer(backend: AskedBackend) -> None:
    """Nothing is made of half an answer."""
    for wrong in (
        said(2, item={"type": "message"}),
        said(2, item={"type": "message", "id": "u2", "role": "nobody", "content": "text"}),
        said(2, item=said(3)["item"]),
        said(2, item=None, role="nobody"),
        said(2, item=None, id="\u0000"),
    ):
        backend.messages["c"] = [said(1), wrong]
        async with client_of(backend, required=True) as client:
            with pytest.raises(BackendUnavailableError, match="does not fit"):
                await client.open("c")


async def test_a_deletion_reaches_the_back_end(backend: AskedBackend) -> None:
    """Nothing of the conversation comes back."""
    backend.messages["c"] = [said(1)]
    async with client_of(backend) as client:
        handle = await client.open("c")
        await client.delete("c")
        with pytest.raises(ConversationNotFoundError):
            await handle.append(Message(role="user", content="hello"))
        with pytest.raises(ConversationNotFoundError):
            await client.open("c", create=False)
    assert backend.messages == {}


async def test_a_deletion_that_the_back_end_did_not_take_is_repeated(backend: AskedBackend) -> None:
    """What is deleted does not come back meanwhile, though the back end has it; nor is it asked for that."""
    backend.messages["c"] = [said(1)]
    async with client_of(backend, required=True) as client:
        await client.open("c")
        backend.answer = answers(503)
        for _ in range(2):
            with pytest.raises(BackendUnavailableError):
                await client.delete("c")
        with pytest.raises(ConversationNotFoundError):
            await client.open("c", create=False)
        backend.answer = None
        with pytest.raises(ConversationNotFoundError):
            await client.open("c", create=False)
        await client.delete("c")
        assert backend.messages == {}
        with pytest.raises(ConversationNotFoundError):
            await client.delete("c")


async def test_what_only_the_back_end_has_can_be_deleted(backend: AskedBackend) -> None:
    """It counts as a conversation that was there."""
    backend.messages["c"] = [said(1)]
    async with client_of(backend) as client:
        await client.delete("c")
        with pytest.raises(ConversationNotFoundError):
            await client.delete("c")
    assert backend.messages == {}


def test_calls_of_tools_come_back_whole() -> None:
    """The newest messages may begin between a call and its output, and one of both may never have arrived."""
    cut = [called(1, is_output=True), said(1), called(2), called(2, is_output=True), called(3)]
    assert window(read(*cut)) == ["u1", "f2", "o2", "f3"]
    assert window(read(called(2, is_output=True), called(2))) == ["f2"]
    without = [said(1), {**called(1), "item": None}, called(1, is_output=True)]
    assert window(read(*without)) == ["u1"]


def test_a_message_without_its_item_is_made_of_the_rest() -> None:
    """Who said it, and in which role of an agent, is kept."""
    state = read(
        said(1, item=None, identity="ada", interrupted=True), said(2, item=None, role="assistant", agent_role="notes")
    )
    first, second = (item.to_item() for item in state.window)
    assert isinstance(first, Message)
    assert isinstance(second, Message)
    assert (first.id, first.text, first.created_at, first.interrupted) == ("u1", "text 1", 1001.0, True)
    assert first.participant == {"identity": "ada", "device": None}
    assert second.to_dict()["agent_role"] == "notes"


def test_what_was_taken_out_of_the_history_does_not_come_back() -> None:
    """It has no text any more; an empty one is a text."""
    assert window(read(said(1, text=None), said(2, text="", item=None))) == ["u2"]


def test_items_of_kinds_that_nobody_knows_yet_come_back() -> None:
    """As they were."""
    vote = {"type": "vote", "id": "v1", "created_at": 1.0, "choice": "yes"}
    state = read(said(1, id="v1", item_type="vote", role=None, text="", item=vote))
    assert [item.to_item().to_dict() for item in state.window] == [vote]


def test_the_bounds_of_a_history_hold() -> None:
    """The oldest are left out, and what is too large alone; calls leave with their outputs."""
    large = said(9, item={**said(9)["item"], "content": "x" * 2000})
    everything = [called(1), *map(said, range(1, 4)), called(1, is_output=True), large, *map(said, range(4, 7))]
    assert window(read(*everything, items=5, item_bytes=1000)) == ["f1", "o1", "u4", "u5", "u6"]
    assert window(read(*everything, items=4, item_bytes=1000)) == ["u4", "u5", "u6"]
    assert window(read(said(1), large, said(2), item_bytes=1000)) == ["u1", "u2"]


def test_an_id_that_comes_again_takes_the_place_of_the_first() -> None:
    """As when an item is appended again; as another kind of item it is left out."""
    again = said(1, item={**said(1)["item"], "content": "changed"})
    state = read(said(1), said(2), again)
    assert [(item.id, item.to_item().text) for item in state.window] == [("u1", "changed"), ("u2", "text 2")]
    other = {**called(1), "id": "u1", "item": {**called(1)["item"], "id": "u1"}}
    assert window(read(said(1), other, called(1, is_output=True))) == ["u1"]
