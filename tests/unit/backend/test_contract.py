"""What a back end does, by its document: the same suite for the reference server, as a process, and for the double.

Every request and every answer is held against docs/backend.openapi.json.
"""

import asyncio
import itertools
import json
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from conversation_actors.archive.outbox import Queued
from conversation_actors.backend.client import BackendClient
from conversation_actors.backend.routes import ROUTES, body
from conversation_actors.calls.happenings import SESSION_RECORDED
from conversation_actors.calls.names import ERROR, OUTCOME
from conversation_actors.calls.outcome import outcome_note
from conversation_actors.state import SetSummary
from conversation_actors.testing import backend_double
from conversation_actors.testing.backend import BackendDouble
from tests.support.backend_contract import (
    TENANT,
    TOKEN,
    ReferenceServer,
    Speaker,
    deliveries_of_document,
    now,
    reference_module,
    removed,
    speaking,
    stored,
    whose,
)
from tests.support.call_entries import START, Conversation

pytestmark = pytest.mark.processes
STRANGE = "Ümläut/../%2F?&=#+ \N{PARTY POPPER} '\";--"
"""An id may have any character."""
EARLIER, LATER = "2020-02-29T09:30:12.204Z", "9020-02-29T09:30:12.204Z"
SPOKEN = {"started_speaking_at": START, "stopped_speaking_at": START + 2.5}
Backend = ReferenceServer | BackendDouble


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReferenceServer]:
    """The reference server, of which each test is another tenant."""
    with ReferenceServer(tmp_path_factory.mktemp("backend")) as server:
        yield server
        assert "Traceback" not in server.log()


@pytest.fixture(params=["server", "double"])
async def backend(request: pytest.FixtureRequest) -> AsyncIterator[Backend]:
    """Each back end."""
    if request.param == "server":
        yield request.getfixturevalue("server")
        return
    async with backend_double(token=TOKEN) as double:
        yield double


@pytest.fixture
async def speaker(backend: Backend) -> AsyncIterator[Speaker]:
    """Somebody who speaks to it."""
    async with speaking(backend.url, tenant=secrets.token_hex(8)) as speaker:
        yield speaker


async def test_the_newest_messages_come_back_the_oldest_of_them_first(speaker: Speaker) -> None:
    """As many as are asked for; none of a conversation that is not known."""
    for number in range(5):
        await speaker.store("c", f"i{number}", f"text {number}")
    await speaker.store("d", "i0", "another's")
    assert await speaker.messages("c") == [(f"i{number}", f"text {number}") for number in range(5)]
    assert await speaker.messages("c", limit=2) == [("i3", "text 3"), ("i4", "text 4")]
    assert await speaker.messages("unknown") == []


async def test_a_message_comes_back_as_it_was_stored(speaker: Speaker) -> None:
    """Whatever its item has."""
    delivery = stored("c", "i", "Hello", tenant=speaker.tenant)
    await speaker.deliver("/v1/messages", delivery)
    query = {"conversation_id": "c", "limit": "1", "tenant": speaker.tenant}
    _, answer = await speaker.ask("GET", "/v1/messages", query=query)
    assert answer["messages"] == [delivery["message"]]


async def test_a_message_that_has_changed_keeps_its_place(speaker: Speaker) -> None:
    """Its new content takes the place of the old one."""
    for item_id in "abc":
        await speaker.store("c", item_id, f"old {item_id}")
    await speaker.store("c", "b", "new b")
    assert await speaker.messages("c") == [("a", "old a"), ("b", "new b"), ("c", "old c")]


async def test_a_delivery_that_comes_again_changes_nothing(speaker: Speaker) -> None:
    """However late: an old version stays old, and what was removed stays removed."""
    await speaker.store("c", "a", "old", key="evt_a")
    await speaker.store("c", "b", "secret", key="evt_b")
    await speaker.store("c", "a", "new")
    await speaker.remove("c", "b")
    await speaker.store("c", "a", "old", key="evt_a")
    await speaker.store("c", "b", "secret", key="evt_b")
    assert await speaker.messages("c") == [("a", "new")]


async def test_messages_that_are_removed_are_forgotten(speaker: Speaker) -> None:
    """Some of them, known or not; or all, and what comes later is there again."""
    for item_id in "abcd":
        await speaker.store("c", item_id)
    await speaker.store("d", "a")
    await speaker.remove("c", "b", "unknown", "d")
    assert [item_id for item_id, _ in await speaker.messages("c")] == ["a", "c"]
    await speaker.remove("c")
    assert await speaker.messages("c") == []
    await speaker.store("c", "e")
    assert await speaker.messages("c") == [("e", "Hello")]
    assert await speaker.messages("d") == [("a", "Hello")]


async def test_a_deleted_conversation_stays_deleted_and_may_begin_anew(speaker: Speaker) -> None:
    """What was still on its way when it was deleted is dropped. It may be deleted again, and need not be known."""
    await speaker.store("c", "a", life="old")
    await speaker.store("d", "a")
    await speaker.delete("c", "old")
    await speaker.store("c", "late", life="old", at=LATER)
    assert await speaker.messages("c") == []
    await speaker.store("c", "b", life="new", at=LATER)
    assert await speaker.messages("c") == [("b", "Hello")]
    for _ in range(2):
        await speaker.delete("c", "old", "new")
    await speaker.delete("unknown")
    assert await speaker.messages("c") == []
    assert await speaker.messages("d") == [("a", "Hello")]


@pytest.mark.parametrize("call", [{}, {"call_id": None}])
@pytest.mark.parametrize("lives", [(), ("old", "older")])
async def test_what_was_deleted_before_anything_had_come_of_it_stays_deleted(
    speaker: Speaker, call: dict[str, None], lives: tuple[str, ...]
) -> None:
    """What is of these lives, or happened before the deletion, is dropped, in a call and between two."""
    await speaker.delete("c", *lives)
    at = LATER if lives else EARLIER
    late = stored("c", "late", "secret", tenant=speaker.tenant, life="old", at=at)
    await speaker.deliver("/v1/messages", {**late, **call})
    assert await speaker.messages("c") == []
    anew = stored("c", "a", "Hello", tenant=speaker.tenant, life="new", at=LATER)
    await speaker.deliver("/v1/messages", {**anew, **call})
    assert await speaker.messages("c") == [("a", "Hello")]


async def test_a_deletion_that_is_slow_spares_what_has_begun_anew(speaker: Speaker) -> None:
    """And an earlier one that comes again takes back nothing of a later one."""
    moment = now()
    await speaker.store("c", "a", life="old", at=EARLIER)
    await speaker.store("c", "b", life="unnamed", at=moment)
    await speaker.store("c", "c", life="new", at=LATER)
    await speaker.delete("c", "old", before=moment)
    assert await speaker.messages("c") == [("c", "Hello")]
    await speaker.delete("c", before=EARLIER)
    await speaker.store("c", "d", life="unnamed", at=moment)
    assert await speaker.messages("c") == [("c", "Hello")]


@pytest.mark.parametrize("query", [{}, {"before": "yesterday"}])
async def test_a_deletion_that_does_not_fit_is_refused(
    backend: Backend, speaker: Speaker, query: dict[str, str]
) -> None:
    """It would delete too much or too little."""
    await speaker.store("c", "a")
    whole = {"conversation_id": "c", "tenant": speaker.tenant, **query}
    status, _ = await speaker.ask("DELETE", "/v1/conversations", query=whole, fits=False)
    assert status == 400
    assert await speaker.messages("c") == [("a", "Hello")]
    if isinstance(backend, BackendDouble):
        backend.faults.clear()


async def test_messages_that_are_too_many_bytes_come_back_from_the_newest_on(
    client: BackendClient, speaker: Speaker
) -> None:
    """As many as whoever asks reads: 4 MiB of UTF-8."""
    for number in range(15):
        await speaker.store("c", f"i{number}", "\u00fc" * 80_000)  # 320,000 bytes, in `text` and in `item`
    assert [one.id for one in await client.messages("c", limit=15)] == [f"i{number}" for number in range(2, 15)]


UNKNOWN = ["/v1/messages", "/v1/transcriptions", "/v1/sessions", "/v1/tomorrow", "/v1/some/day"]


@pytest.mark.parametrize("path", UNKNOWN)
async def test_a_delivery_of_an_unknown_type_is_taken_and_changes_nothing(
    backend: Backend, speaker: Speaker, path: str
) -> None:
    """A newer version may send it: refused, it would make the rest of its conversation wait."""
    await speaker.store("c", "kept")
    headers = {"Authorization": f"Bearer {TOKEN}", "Idempotency-Key": "evt_new"}
    told = {**whose("c", "message.starred", tenant=speaker.tenant), "message": {"id": "kept"}, "ids": None}
    async with speaker.session.post(f"{backend.url}{path}", json=told, headers=headers) as answer:
        assert answer.status == 204
    assert await speaker.messages("c") == [("kept", "Hello")]


@pytest.mark.parametrize(
    "told", [{"type": "message.starred"}, {**whose("c", "message.starred"), "tenant": None}, {"type": None}, []]
)
@pytest.mark.parametrize("path", ["/v1/messages", "/v1/tomorrow"])
async def test_what_says_nothing_of_whose_it_is_is_refused_whatever_its_type(
    backend: Backend, speaker: Speaker, path: str, told: Any
) -> None:
    """It is no delivery of any version."""
    async with speaker.session.post(f"{backend.url}{path}", json=told, headers={"Idempotency-Key": "evt_x"}) as answer:
        assert answer.status == (400 if path == "/v1/messages" else 404)
    if isinstance(backend, BackendDouble):
        backend.faults.clear()


async def test_a_known_type_at_an_unknown_path_is_refused(backend: Backend, speaker: Speaker) -> None:
    """The base of the URL is wrong then, and nothing is to be lost by it."""
    told = stored("c", "a", "Hello", tenant=speaker.tenant)
    headers = {"Idempotency-Key": "evt_x"}
    async with speaker.session.post(f"{backend.url}/v1/v1/messages", json=told, headers=headers) as answer:
        assert answer.status == 404
    if isinstance(backend, BackendDouble):
        backend.faults.clear()


async def test_tenants_have_nothing_in_common(speaker: Speaker) -> None:
    """Their conversations may have the same ids."""
    await speaker.store("c", "a", "of one")
    await speaker.store("c", "a", "of the other", tenant="other")
    assert await speaker.messages("c") == [("a", "of one")]
    await speaker.delete("c")
    assert await speaker.messages("c", tenant="other") == [("a", "of the other")]


async def test_ids_may_have_any_character(speaker: Speaker) -> None:
    """They are in no path."""
    await speaker.store(STRANGE, STRANGE, "Hello")
    assert await speaker.messages(STRANGE) == [(STRANGE, "Hello")]
    await speaker.remove(STRANGE, STRANGE)
    await speaker.store(STRANGE, "b")
    assert await speaker.messages(STRANGE) == [("b", "Hello")]
    await speaker.delete(STRANGE)
    assert await speaker.messages(STRANGE) == []


@pytest.mark.parametrize("token", [None, "another", f"{TOKEN}s", TOKEN[:-1], "\u00fc"])
async def test_who_does_not_know_the_token_gets_nothing(backend: Backend, speaker: Speaker, token: str | None) -> None:
    """And changes nothing."""
    async with speaking(backend.url, token=token, tenant=speaker.tenant) as stranger:
        for method, path in (("GET", "/v1/messages"), ("DELETE", "/v1/conversations")):
            status, answer = await stranger.ask(method, path, query={"conversation_id": "c", "limit": "1"}, fits=False)
            assert status == 401
            assert "messages" not in (answer or {})
        headers = {"Idempotency-Key": "evt_x"}
        status, _ = await stranger.ask(
            "POST", "/v1/messages", body=stored("c", "a", "Hello", tenant=speaker.tenant), headers=headers
        )
        assert status == 401
    assert await speaker.messages("c") == []


MISFITS: list[tuple[str, Any]] = [
    ("/v1/messages", b"{"),
    ("/v1/messages", b"\xff\xfe"),
    ("/v1/messages", b"[" * 100_000),
    ("/v1/messages", []),
    ("/v1/messages", None),
    ("/v1/messages", {"type": "message.stored"}),
    ("/v1/messages", {**whose("c", "message.stored"), "message": {"text": "Hello"}}),
    ("/v1/messages", {**stored("c", "a", "Hello"), "conversation_id": 7}),
    ("/v1/messages", {**stored("c", "a", "Hello"), "type": "turn.completed"}),
    ("/v1/messages", {**stored("c", "a", "Hello"), "type": "transcription.interim"}),
    ("/v1/transcriptions", {"type": "transcription.interim"}),
    ("/v1/messages/removed", {**removed("c", None), "ids": "kept"}),
    ("/v1/turns", {**whose("c", "turn.completed"), "user": None, "agent": None}),
    ("/v1/context", {"conversation_id": "c"}),
]


@pytest.mark.parametrize(("path", "body"), MISFITS, ids=[str(number) for number in range(len(MISFITS))])
async def test_what_does_not_fit_is_refused_and_changes_nothing(
    backend: Backend, speaker: Speaker, path: str, body: Any
) -> None:
    """With 400, and not with a crash: its sender says why it waits."""
    await speaker.store("c", "kept")
    if isinstance(body, dict) and "tenant" in body:
        body = {**body, "tenant": speaker.tenant}
    headers = {"Idempotency-Key": "evt_bad"} if path != "/v1/context" else None
    status, _ = await speaker.ask("POST", path, body=body, headers=headers, fits=False)
    assert status == 400
    assert await speaker.messages("c") == [("kept", "Hello")]
    if isinstance(backend, BackendDouble):
        assert len(backend.faults) == 1
        backend.faults.clear()


@pytest.mark.parametrize("path", deliveries_of_document())
async def test_a_delivery_without_its_key_is_refused(backend: Backend, speaker: Speaker, path: str) -> None:
    """Repeats of it could not be told from others."""
    status, _ = await speaker.ask("POST", path, body=stored("c", "a", "Hello"), fits=False)
    assert status == 400
    if isinstance(backend, BackendDouble):
        backend.faults.clear()


@pytest.mark.parametrize(
    "query", [{}, {"conversation_id": "c", "limit": "many"}, {"conversation_id": "", "limit": "1"}]
)
async def test_a_question_that_does_not_fit_is_refused(
    backend: Backend, speaker: Speaker, query: dict[str, str]
) -> None:
    """It names no conversation, or no number."""
    status, _ = await speaker.ask("GET", "/v1/messages", query=query, fits=False)
    assert status == 400
    if isinstance(backend, BackendDouble):
        backend.faults.clear()


async def test_what_somebody_is_just_saying_is_taken_without_a_key(speaker: Speaker) -> None:
    """It comes from the agent, once or never."""
    interim = {
        **whose("c", "transcription.interim", tenant=speaker.tenant), "call_id": None, "seq": None,
        "item_id": None, "text": "Hel", "identity": "ada", "language": None, "final": False,
    }  # fmt: skip
    status, _ = await speaker.ask("POST", "/v1/transcriptions", body=interim)
    assert 200 <= status < 300
    assert await speaker.messages("c") == []


@pytest.fixture
async def client(backend: Backend, speaker: Speaker) -> AsyncIterator[BackendClient]:
    """What asks the back end in a client and in an agent."""
    settings = backend.settings.model_copy(
        update={"context_budget": timedelta(seconds=10), "recall_timeout": timedelta(seconds=10)}
    )
    async with BackendClient(settings, speaker.tenant) as client:
        yield client


async def test_a_client_is_answered(client: BackendClient, speaker: Speaker) -> None:
    """With messages as they were stored; and it can have them deleted, of its own tenant alone."""
    delivery = stored(STRANGE, "a", "Hello", tenant=speaker.tenant)
    await speaker.deliver("/v1/messages", delivery)
    await speaker.store(STRANGE, "b", "And?")
    await speaker.store(STRANGE, "a", "another's", tenant="other")
    found = await client.messages(STRANGE)
    assert [one.text for one in found] == ["Hello", "And?"]
    assert found[0].item == delivery["message"]["item"]
    assert [one.id for one in await client.messages(STRANGE, limit=1)] == ["b"]
    assert await client.messages("unknown") == []
    await client.delete(STRANGE, before=datetime.now(UTC))
    assert await client.messages(STRANGE) == []
    assert await speaker.messages(STRANGE, tenant="other") == [("a", "another's")]


async def test_an_agent_is_answered(client: BackendClient) -> None:
    """It asks for context, and tells what somebody is just saying."""
    assert await client.context("c", identity="ada", text="Hello", item_id=None) == []
    assert await client.context("c", identity=None, text="Hello", item_id="i") == []
    await client.transcribed("c", life="l", text="Hel", identity="ada", language=None, at=1.5)
    assert await client.messages("c") == []


def a_call() -> Conversation:
    """A call in which everything happens of which a back end is told."""
    call = Conversation()
    call.come(0, name="Ada")
    call.take(1, "job-1")
    call.say(
        2, "u1", "Where is my order?", metrics=SPOKEN, extra={"participant": {"identity": "ada"}, "language": "en"}
    )
    call.append(3, {"type": "function_call", "id": "c1", "call_id": "1", "name": "look_up", "arguments": "{}"})
    call.append(4, {"type": "function_call_output", "id": "o1", "call_id": "1", "output": "on its way"})
    call.say(5, "a1", "It is on", role="assistant", metrics=SPOKEN, interrupted=True)
    call.note(6, ERROR, {"type": "APIError", "source": "LLM", "recoverable": False, "at": START})
    call.go(7)
    call.come(8, name="Ada")
    call.take(9, "job-2", replacing="job-1")
    call.say(10, "u2", "My number is 4711.", extra={"participant": {"identity": "ada"}})
    call.remove(11, "u2")
    call.ask(12, SetSummary("Ada waits for her order.", call.state.seq))
    call.note(13, OUTCOME, outcome_note({"resolved": True}, START))
    call.end(14)
    return call


@pytest.mark.parametrize("most_bytes", [1 << 20, 1 << 10])
async def test_everything_that_happens_in_a_call_is_taken(speaker: Speaker, most_bytes: int) -> None:
    """As an outbox sends it, whole or cut: each delivery fits the document, and the history is there in the end."""
    call, paths = a_call(), set()
    for number, one in enumerate(call.told(reports=True), 1):
        if one.type not in ROUTES:
            continue
        queued = Queued(number, one.id, one.type, one.at, one.call_id, one.seq, json.dumps(one.data))
        sent = body(queued, tenant=speaker.tenant, conversation_id="c", most_bytes=most_bytes)
        await speaker.deliver(ROUTES[one.type], json.loads(sent), key=one.id)
        paths.add(ROUTES[one.type])
    assert paths == set(deliveries_of_document())
    assert [item_id for item_id, _ in await speaker.messages("c")] == [item.id for item in call.state.window]


async def test_the_reference_server_tells_an_agent_of_the_callers_last_calls(server: ReferenceServer) -> None:
    """In any conversation of the same tenant; not of others' calls, and not of one that was deleted."""
    async with speaking(server.url, tenant=secrets.token_hex(8)) as speaker:
        record = next(one for one in a_call().told() if one.type == SESSION_RECORDED)
        delivery = {
            **record.data,
            **whose("c", SESSION_RECORDED, tenant=speaker.tenant),
            "at": "2026-11-28T09:30:12.204Z",
        }
        await speaker.deliver("/v1/sessions", json.loads(json.dumps(delivery)))
        (told,) = await speaker.context("ada")
        assert told == (
            "An earlier call, of 2026-11-28, lasted 14 s (completed). Ada waits for her order."
            ' Its outcome: {"resolved": true}.'
        )
        assert await speaker.context("bob") == []
        assert await speaker.context(None) == []
        await speaker.delete("c", str(delivery["life"]))
        assert await speaker.context("ada") == []


def test_the_reference_server_finds_a_callers_calls_however_many_others_there_are(
    tmp_path: Path,
) -> None:
    """An agent waits 150 ms for its context: the steps of the database do not grow with the calls of others."""
    module = reference_module()
    record = next(one for one in a_call().told() if one.type == SESSION_RECORDED)

    def keep(records: Any, number: int, identity: str) -> None:
        told = {**record.data, **whose(f"c{number}", SESSION_RECORDED), "participants": [{"identity": identity}]}
        records.take(f"evt_{number}", json.loads(json.dumps(told)))

    def steps(others: int) -> int:
        with closing(module.Records(str(tmp_path / f"{others}.db"))) as records:
            for number in range(others):
                keep(records, number, "bob")
            keep(records, others, "ada")
            counted = itertools.count()
            records._database.set_progress_handler(lambda: next(counted) < 0, 1)
            assert len(records.earlier_calls(TENANT, "ada")) == 1
            return next(counted)

    assert steps(300) == steps(3)


async def test_the_reference_server_forgets_the_words_of_removed_messages_everywhere(tmp_path: Path) -> None:
    """In what it has of turns and transcriptions too: they stand nowhere in its file."""
    call = a_call()
    call.remove(20, "u1")
    with ReferenceServer(tmp_path) as server:
        async with speaking(server.url) as speaker:
            for one in call.told(reports=True):
                if one.type in ROUTES:
                    sent = {**one.data, **whose("c", one.type)}
                    await speaker.deliver(ROUTES[one.type], json.loads(json.dumps(sent)), key=one.id)
    kept = (tmp_path / "backend.db").read_bytes()
    assert b"on its way" in kept
    assert b"Where is my order" not in kept
    assert b"4711" not in kept


def test_a_reference_server_that_is_killed_has_all_that_it_has_taken(tmp_path: Path) -> None:
    """Its answer comes after its disk has it, and a repeat is still known as one."""

    async def first(url: str) -> None:
        async with speaking(url) as speaker:
            await speaker.store("c", "a", "old", key="evt_a")
            await speaker.store("c", "a", "new")

    async def second(url: str) -> None:
        async with speaking(url) as speaker:
            await speaker.store("c", "a", "old", key="evt_a")
            assert await speaker.messages("c") == [("a", "new")]

    with ReferenceServer(tmp_path) as server:
        asyncio.run(first(server.url))
        server.kill()
        server.start()
        asyncio.run(second(server.url))
