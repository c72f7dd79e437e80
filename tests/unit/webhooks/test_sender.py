"""One request to a receiver that misbehaves in every way: it was taken, or why not is told without a secret."""

import asyncio
import gzip
import ssl
from collections.abc import Sequence
from datetime import timedelta

import pytest
import trustme
from aiohttp import web
from pydantic import SecretStr
from standardwebhooks import Webhook

from conversation_actors.webhooks.resolver import Lookup, look_up
from conversation_actors.webhooks.sender import Parcel, Refusal, Sender
from tests.support.receivers import OTHER_SECRET, SECRET, Event, Receiver, fail, hang, raw, receiving, signed

PATIENT = timedelta(seconds=20)
SHORT = timedelta(milliseconds=300)
TOKEN = "token-that-nobody-may-see"


async def sent(
    url: str,
    *,
    patience: timedelta = PATIENT,
    allow_private: bool = True,
    trusted: ssl.SSLContext | None = None,
    lookup: Lookup = look_up,
    secret: Sequence[str] = (SECRET,),
) -> Refusal | None:
    """Send one request, and return what became of it."""
    parcel = signed(url, secret=tuple(map(SecretStr, secret)))
    async with Sender(timeout=patience, allow_private=allow_private, trusted=trusted, lookup=lookup) as sender:
        refusal = await sender.send(parcel)
    if refusal is not None:
        assert TOKEN not in repr(refusal)
        assert not any(one.removeprefix("whsec_") in repr(refusal) for one in secret)
    return refusal


async def test_what_is_answered_with_2xx_is_taken() -> None:
    """A receiver verifies it with the library of Standard Webhooks."""
    async with receiving() as receiver:
        assert await sent(receiver.url) is None
    (event,) = receiver.told
    assert (event["id"], event["type"]) == ("evt_1", "call.started")
    assert receiver.headers[0]["Content-Type"] == "application/json"


async def test_everything_is_signed_with_every_secret() -> None:
    """A receiver that knows the old one and a receiver that knows the new one both take it."""
    async with receiving() as receiver:
        assert await sent(receiver.url, secret=(OTHER_SECRET, SECRET)) is None
    headers = receiver.headers[0]
    assert len(headers["webhook-signature"].split()) == 2
    for secret in (SECRET, OTHER_SECRET):
        assert Webhook(secret).verify(signed(receiver.url).body, headers)


@pytest.mark.parametrize("status", [300, 400, 401, 404, 410, 422, 500, 502, 599])
async def test_other_answers_are_refusals(status: int) -> None:
    """None of them is final: what is wrong with a receiver can be mended."""

    async def answer(_: Event, __: Receiver) -> web.StreamResponse:
        return web.Response(status=status, text="what the receiver says is not told")

    async with receiving(answer) as receiver:
        refusal = await sent(receiver.url)
    assert refusal is not None
    assert refusal.reason.startswith(f"answered {status}")
    assert "says" not in refusal.reason
    assert (refusal.is_final, refusal.pause) == (False, 0.0)


@pytest.mark.parametrize(
    ("status", "told", "pause"),
    [(429, "120", 120.0), (503, "999999", 3600.0), (503, "soon", 0.0), (500, "120", 0.0), (429, "9" * 4000, 0.0)],
)
async def test_a_busy_receiver_says_when_to_come_again(status: int, told: str, pause: float) -> None:
    """It is left alone for so long, within bounds."""

    async def answer(_: Event, __: Receiver) -> web.StreamResponse:
        return web.Response(status=status, headers={"Retry-After": told})

    async with receiving(answer) as receiver:
        refusal = await sent(receiver.url)
    assert refusal is not None
    assert refusal.pause == pause


async def test_a_redirect_is_not_followed() -> None:
    """It could lead to an address inside the network."""
    async with receiving() as inside, receiving() as receiver:

        async def redirect(_: Event, __: Receiver) -> web.StreamResponse:
            return web.Response(status=307, headers={"Location": inside.url})

        receiver.reply = redirect
        refusal = await sent(receiver.url)
        assert inside.tried == []
    assert refusal == Refusal("answered 307: redirects are not followed")


async def test_a_receiver_that_hangs_is_given_up() -> None:
    """After the time that it has for its answer."""
    async with receiving(hang) as receiver:
        assert await sent(receiver.url, patience=SHORT) == Refusal("no whole answer within 0.3 s")


async def test_a_receiver_that_dribbles_is_given_up() -> None:
    """A byte now and then does not prolong its time."""

    async def dribble(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        while not writer.is_closing():
            writer.write(b".")
            await asyncio.sleep(0.01)

    async with raw(dribble) as url:
        assert await sent(url, patience=SHORT) == Refusal("no whole answer within 0.3 s")


@pytest.mark.parametrize(
    "answered",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello",
    ],
)
async def test_an_answer_that_breaks_off_is_no_answer(answered: bytes) -> None:
    """Whatever its first line says."""

    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(answered)

    async with raw(answer) as url:
        assert await sent(url) == Refusal("closed before the answer was whole")


async def test_an_endless_answer_is_not_read_to_its_end() -> None:
    """2xx was told, and memory is bounded; a compressed body is not unpacked."""

    async def endless(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 100000000000\r\n\r\n")
        piece = gzip.compress(b"0" * (1 << 20), 0)
        while not writer.is_closing():
            writer.write(piece)
            await writer.drain()

    async with raw(endless) as url:
        assert await sent(url) is None


@pytest.mark.parametrize("late", [False, True])
async def test_a_second_answer_does_not_count_for_the_next_request(*, late: bool) -> None:
    """Neither at once nor when the next request is there: what the receiver never took would count as delivered."""
    taken = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    answered: set[asyncio.StreamWriter] = set()

    async def twice(writer: asyncio.StreamWriter) -> None:
        if not answered:
            writer.write(taken if late else taken * 2)
        elif writer in answered:
            writer.write(taken)
        else:
            writer.write(b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n")
        answered.add(writer)
        await writer.drain()

    async with (
        raw(twice, keeps=True) as url,
        Sender(timeout=PATIENT, allow_private=True) as sender,
    ):
        assert await sender.send(signed(url)) is None
        assert await sender.send(signed(url, "evt_2")) == Refusal("answered 500")


async def test_what_is_not_http_is_a_refusal() -> None:
    """And so is a status that is no number."""

    async def mumble(writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-OpenSSH_9.6\r\n\r\n")

    async with raw(mumble) as url:
        assert await sent(url) == Refusal("answered with what is not HTTP")


async def test_a_receiver_that_is_not_there_is_a_refusal() -> None:
    """The port is one that nobody listens at any more."""
    async with raw(lambda _: asyncio.sleep(0)) as url:
        pass
    assert await sent(url + f"?t={TOKEN}") == Refusal("cannot be reached (ConnectionRefusedError)")


def certificates() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Return a server's certificate for localhost, and who trusts its authority."""
    authority = trustme.CA()
    server, trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("localhost").configure_cert(server)
    authority.configure_trust(trusting)
    return server, trusting


async def test_a_receiver_has_a_certificate_of_a_trusted_authority() -> None:
    """Then it is taken."""
    server, trusting = certificates()
    async with receiving(tls=server) as receiver:
        url = receiver.url.replace("127.0.0.1", "localhost")
        assert await sent(url, trusted=trusting) is None
    assert len(receiver.told) == 1


async def test_an_untrusted_certificate_is_refused_before_anything_is_sent() -> None:
    """One of an unknown authority, and one for another host."""
    server, trusting = certificates()
    async with receiving(tls=server) as receiver:
        unknown = await sent(receiver.url.replace("127.0.0.1", "localhost"))
        other = await sent(receiver.url, trusted=trusting)
    assert receiver.tried == []
    for refusal in (unknown, other):
        assert refusal is not None
        assert refusal.reason.startswith("the certificate does not hold: ")


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "127.9.9.9"])
async def test_a_private_address_in_the_url_is_not_tried(host: str) -> None:
    """Whatever listens there."""
    refusal = await sent(f"https://{host}:1/hook", allow_private=False)
    assert refusal == Refusal("not tried: the address is not of the public internet")


async def test_a_name_that_leads_inside_is_not_tried() -> None:
    """The receiver at that address hears nothing, also if the name led outside when it was configured."""
    answers = iter([["192.0.2.1"], ["127.0.0.1"], ["::ffff:127.0.0.1", "10.0.0.1"]])
    async with receiving() as inside:
        url = inside.url.replace("127.0.0.1", "rebinding.example")
        for _ in range(3):
            refusal = await sent(url, allow_private=False, lookup=lambda *_: next(answers))
            assert refusal == Refusal("not tried: the address is not of the public internet")
    assert inside.tried == []


async def test_the_address_that_was_checked_is_the_one_that_is_connected_to() -> None:
    """A name is asked for once a try: a second answer, which nobody has checked, is never used."""
    asked: list[str] = []

    def lookup(host: str, _: int) -> Sequence[str]:
        asked.append(host)
        return ["127.0.0.1"]

    async with receiving() as receiver:
        url = receiver.url.replace("127.0.0.1", "crm.example")
        async with Sender(timeout=PATIENT, allow_private=True, lookup=lookup) as sender:
            for number in range(3):
                assert await sender.send(signed(url, f"evt_{number}")) is None
    assert asked == ["crm.example"] * 3
    assert receiver.headers[0]["Host"].startswith("crm.example:")


async def test_a_name_that_nobody_knows_is_a_refusal() -> None:
    """Names under .invalid are nobody's."""

    def lookup(_: str, __: int) -> Sequence[str]:
        raise OSError(-2, "Name or service not known")

    assert await sent(f"https://crm.invalid/{TOKEN}", lookup=lookup) == Refusal("the name was not found")


async def test_names_that_nobody_answers_for_keep_nobody_else_waiting() -> None:
    """A lookup that hangs takes a thread of its own destination, one for all of its tries."""
    release = asyncio.Event()
    loop = asyncio.get_running_loop()
    asked = 0

    def hanging(_: str, __: int) -> Sequence[str]:
        nonlocal asked
        asked += 1
        asyncio.run_coroutine_threadsafe(release.wait(), loop).result()
        return ["127.0.0.1"]

    async with receiving() as receiver, Sender(timeout=SHORT, allow_private=True, lookup=hanging) as slow:
        parcel = signed("https://slow.example/")
        tries = [asyncio.create_task(slow.send(parcel)) for _ in range(50)]
        assert await sent(receiver.url.replace("127.0.0.1", "localhost")) is None
        assert {await one for one in tries} == {Refusal("no whole answer within 0.3 s")}
        release.set()
    assert asked == 1


async def test_no_proxy_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy would connect to whatever address it likes."""
    async with receiving() as proxy, receiving(fail) as receiver:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("http_proxy", proxy.url)
        assert await sent(receiver.url) == Refusal("answered 500")
    assert proxy.tried == []


def test_a_parcel_shows_neither_its_secrets_nor_what_is_in_it() -> None:
    """Whoever logs one."""
    parcel = Parcel(SecretStr(f"https://crm.example/{TOKEN}"), {"Authorization": TOKEN}, TOKEN)
    assert TOKEN not in repr(parcel)
