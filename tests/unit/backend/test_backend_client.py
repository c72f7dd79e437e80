"""What a back end is asked over real sockets: it answers, misbehaves in every way, or is where nobody may go."""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest

from conversation_actors.backend.client import BackendClient
from conversation_actors.backend.exchange import Exchange
from conversation_actors.errors import BackendUnavailableError
from conversation_actors.webhooks.resolver import Lookup, look_up
from tests.support.asked_backend import (
    TOKEN,
    AskedBackend,
    answers,
    asked_backend,
    backend_settings,
    certificates,
    hang,
    said,
)
from tests.support.receivers import raw

SHORT = timedelta(milliseconds=300)
ODD = "a/b?c=d&é☎ %2F#"


@asynccontextmanager
async def asking(url: str, *, lookup: Lookup = look_up, **values: Any) -> AsyncIterator[BackendClient]:
    """A client of the back end at a URL."""
    settings = backend_settings(url, **values)
    async with BackendClient(settings, "acme", exchange=Exchange(settings, lookup=lookup)) as client:
        yield client


async def refused(client: BackendClient) -> str:
    """What is told of a question that was not answered."""
    with pytest.raises(BackendUnavailableError) as caught:
        await client.messages("c")
    told = str(caught.value)
    assert TOKEN not in told
    assert "/base" not in told
    assert "v1" not in told
    return told.partition(": ")[2]


async def test_recent_messages_are_asked_for() -> None:
    """By the conversation's id, whatever characters it has, with the token; in their order."""
    async with asked_backend() as backend, asking(backend.url, messages=2) as client:
        backend.messages[ODD] = [said(1), said(2), said(3)]
        assert [one.id for one in await client.messages(ODD)] == ["u2", "u3"]
        assert [one.id for one in await client.messages(ODD, limit=1)] == ["u3"]
        assert await client.messages("unknown") == []
    first = backend.asked("GET", "/base/v1/messages")[0]
    assert first.query == {"conversation_id": ODD, "limit": "2"}
    assert first.headers["Authorization"] == f"Bearer {TOKEN}"


async def test_a_conversation_is_deleted_by_its_id() -> None:
    """An answer that is 2xx is enough, whatever it says."""
    async with asked_backend() as backend, asking(backend.url) as client:
        backend.messages[ODD] = [said(1)]
        await client.delete(ODD)
        assert ODD not in backend.messages
        backend.answer = answers(200, "no JSON" * 100_000)
        await client.delete(ODD)
        backend.answer = answers(404)
        with pytest.raises(BackendUnavailableError, match="answered 404"):
            await client.delete(ODD)


async def test_context_is_asked_for_what_was_said() -> None:
    """By whom, in which message; the answer is texts."""
    async with asked_backend() as backend, asking(backend.url) as client:
        backend.context = ["Ada is a customer since 2019.", "She waits for her order."]
        found = await client.context(ODD, identity="ada", text="Where is it? \ud800", item_id="u1")
        assert found == backend.context
        (request,) = backend.asked("POST", "/base/v1/context")
        assert request.headers["Content-Type"] == "application/json"
        assert json.loads(request.body) == {
            "conversation_id": ODD, "tenant": "acme", "identity": "ada", "text": "Where is it? ?", "item_id": "u1",
        }  # fmt: skip


async def test_words_in_progress_are_told() -> None:
    """They are of no call, and at no position."""
    async with asked_backend() as backend, asking(backend.url) as client:
        await client.transcribed("c", text="where is", identity="ada", language="en")
        (request,) = backend.asked("POST", "/base/v1/transcriptions")
    told = json.loads(request.body)
    assert told.pop("at").endswith("Z")
    assert told == {
        "type": "transcription.interim", "conversation_id": "c", "call_id": None, "tenant": "acme", "seq": None,
        "truncated": False, "item_id": None, "text": "where is", "identity": "ada", "language": "en", "final": False,
    }  # fmt: skip


async def test_only_what_is_urgent_uses_a_connection_again() -> None:
    """On a used one, a second answer to an earlier question would count as the answer to a deletion."""
    async with asked_backend() as backend, asking(backend.url) as client:
        for _ in range(3):
            await client.context("c", identity=None, text="hello", item_id=None)
            await client.delete("c")
    urgent = {one.connection for one in backend.asked("POST", "/base/v1/context")}
    others = {one.connection for one in backend.asked("DELETE", "/base/v1/conversations")}
    assert (len(urgent), len(others), urgent & others) == (1, 3, set())


async def test_a_connection_that_was_closed_meanwhile_is_no_failure() -> None:
    """The question is asked again, once, on another one."""
    taken: list[asyncio.StreamWriter] = []

    async def once_a_connection(writer: asyncio.StreamWriter) -> None:
        if writer in taken:
            writer.close()
            return
        taken.append(writer)
        text = b'{"context": ["known"]}'
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(text), text))

    async with raw(once_a_connection, keeps=True) as url, asking(url) as client:
        for _ in range(3):
            assert await client.context("c", identity=None, text="hello", item_id=None) == ["known"]
    assert len(taken) == 3


@pytest.mark.parametrize("status", [300, 307, 400, 401, 404, 429, 500, 503])
async def test_any_other_status_is_a_refusal(status: int) -> None:
    """Nothing of the answer is told, and redirects are not followed."""
    answer = answers(status, "what it says", Location="/elsewhere")
    async with asked_backend(answer) as backend, asking(backend.url) as client:
        assert await refused(client) == f"answered {status}"
    assert len(backend.requests) == 1


@pytest.mark.parametrize(
    ("body", "what"),
    [
        ("", "the whole of it: json_invalid"),
        ("[]", "the whole of it: model_type"),
        ("{}", "messages: missing"),
        ('{"messages": null}', "messages: list_type"),
        ('{"messages": [{"id": "u1"}]}', "messages.*.item_type: missing"),
        ('{"messages": [{"id": 7, "item_type": "message"}]}', "messages.*.id: string_type"),
        ('{"messages": [{"id": "", "item_type": "message"}]}', "messages.*.id: string_too_short"),
        ('{"messages": [{"id": "u1", "item_type": "message", "item": []}]}', "messages.*.item: dict_type"),
        ("[" * 100_000, "the whole of it: json_invalid"),
    ],
)
async def test_an_answer_that_does_not_fit_is_no_answer(body: str, what: str) -> None:
    """The error tells where, and not a word of what was said."""
    async with asked_backend(answers(200, body)) as backend, asking(backend.url) as client:
        assert await refused(client) == f"answered with what does not fit its document ({what})"


async def test_more_messages_than_anybody_asked_for_are_refused() -> None:
    """Up to a bound they are read."""
    few = json.dumps({"messages": [{"id": "u", "item_type": "message"}] * 10_000})
    many = json.dumps({"messages": [{"id": "u", "item_type": "message"}] * 10_001})
    async with asked_backend(answers(200, few)) as backend, asking(backend.url) as client:
        assert len(await client.messages("c")) == 10_000
        backend.answer = answers(200, many)
        assert "10001 messages" in await refused(client)


async def test_an_endless_answer_is_not_read_to_its_end() -> None:
    """Nor is one that is packed."""
    written = 0

    async def endless(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000000\r\n\r\n")
        nonlocal written
        while not writer.is_closing():
            writer.write(b" " * (1 << 20))
            written += 1
            await writer.drain()

    async with raw(endless) as url, asking(url) as client:
        assert await refused(client) == f"answered with more than {4 << 20} bytes"
    assert written < 64
    packed = answers(200, gzip.compress(b'{"messages": []}').decode("latin-1"), **{"Content-Encoding": "gzip"})
    async with asked_backend(packed) as backend, asking(backend.url) as client:
        assert await refused(client) == "answered with what is compressed"


@pytest.mark.parametrize("answered", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"])
async def test_an_answer_that_breaks_off_is_no_answer(answered: bytes) -> None:
    """Also to a deletion, whatever its first line says."""

    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(answered)

    async with raw(answer) as url, asking(url) as client:
        assert await refused(client) == "closed before the answer was whole"
        with pytest.raises(BackendUnavailableError, match="closed before"):
            await client.delete("c")


async def test_nobody_waits_longer_than_the_setting_of_the_question() -> None:
    """Each has its own."""
    async with asked_backend(hang) as backend:
        async with asking(backend.url, recall_timeout=SHORT) as client:
            assert await refused(client) == "no whole answer within 0.3 s"
            with pytest.raises(BackendUnavailableError, match=r"within 0\.3 s"):
                await client.delete("c")
        async with asking(backend.url, context_budget=SHORT) as client:
            with pytest.raises(BackendUnavailableError, match=r"within 0\.3 s"):
                await client.context("c", identity=None, text="hello", item_id=None)
        async with asking(backend.url, timeout=SHORT) as client:
            with pytest.raises(BackendUnavailableError, match=r"within 0\.3 s"):
                await client.transcribed("c", text="hello", identity=None, language=None)


async def test_a_name_that_nobody_answers_for_costs_no_more() -> None:
    """The thread that asks for it is not waited for, by whoever gives up, and not at the end."""
    release = asyncio.Event()
    loop = asyncio.get_running_loop()

    def hanging(_: str, __: int) -> Sequence[str]:
        asyncio.run_coroutine_threadsafe(release.wait(), loop).result()
        return ["127.0.0.1"]

    async with asking("http://slow.example/base", lookup=hanging, context_budget=SHORT) as client:
        tries = [client.context("c", identity=None, text="hello", item_id=None) for _ in range(20)]
        told = await asyncio.gather(*tries, return_exceptions=True)
    assert {str(one) for one in told} == {"the back end at http://slow.example: no whole answer within 0.3 s"}
    release.set()


async def test_whoever_gives_up_leaves_the_back_end_no_request() -> None:
    """A question that is cancelled closes its connection."""
    gone, arrived = asyncio.Event(), asyncio.Event()

    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        arrived.set()
        while not writer.is_closing():
            writer.write(b" ")
            await asyncio.sleep(0.01)
        gone.set()

    async with raw(answer) as url, asking(url) as client:
        question = asyncio.create_task(client.context("c", identity=None, text="hello", item_id=None))
        await arrived.wait()
        question.cancel()
        with pytest.raises(asyncio.CancelledError):
            await question
        async with asyncio.timeout(20):
            await gone.wait()


async def test_nobody_there_is_a_refusal() -> None:
    """The port is one that nobody listens at any more."""
    async with asked_backend() as backend:
        url = backend.url
    async with asking(url) as client:
        assert await refused(client) == "cannot be reached (ConnectionRefusedError)"


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "[::ffff:127.0.0.1]"])
async def test_a_private_address_in_the_url_is_not_tried(host: str) -> None:
    """Unless private networks are allowed."""
    async with asking(f"https://{host}:1/base", private_networks=False) as client:
        assert await refused(client) == "not tried: the address is not of the public internet"


async def test_a_name_that_leads_inside_is_not_tried() -> None:
    """The back end at that address hears nothing."""
    authority, server = certificates()
    async with asked_backend(tls=server) as inside:
        settings = backend_settings(inside.url.replace("127.0.0.1", "rebinding.example"), private_networks=False)
        exchange = Exchange(settings, trusted=authority, lookup=lambda *_: ["127.0.0.1"])
        async with BackendClient(settings, "acme", exchange=exchange) as client:
            assert await refused(client) == "not tried: the address is not of the public internet"
    assert inside.requests == []


async def test_the_certificate_must_hold() -> None:
    """Nothing is sent to anybody else."""
    trusting, server = certificates()
    async with asked_backend(tls=server) as backend:
        settings = backend_settings(backend.url.replace("127.0.0.1", "localhost"))
        async with BackendClient(settings, "acme") as client:
            assert (await refused(client)).startswith("the certificate does not hold: ")
        assert backend.requests == []
        async with BackendClient(settings, "acme", exchange=Exchange(settings, trusted=trusting)) as client:
            assert await client.messages("c") == []


async def test_it_is_used_again_after_it_was_closed() -> None:
    """Closing twice is harmless."""
    async with asked_backend() as backend, asking(backend.url) as client:
        assert isinstance(backend, AskedBackend)
        await client.messages("c")
        await client.aclose()
        await client.aclose()
        assert await client.messages("c") == []
