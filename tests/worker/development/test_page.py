"""The caller's page: who gets a token, for what, and what the page is allowed to do in a browser."""

import asyncio
import hashlib
import logging
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import jwt
import pytest

from agent_worker.development import page as page_module
from agent_worker.development.page import LIBRARY, LIBRARY_MISSING, WEB, PageServer
from agent_worker.timing import Timing
from conversation_actors.errors import InvalidInputError
from tests.support.browser import chromium_missing, open_page

LIVEKIT = "ws://127.0.0.1:7880"
API_KEY, SECRET, AGENT = "devkey", "a-secret-of-at-least-32-characters-0", "support"
KEY = "k+e/y=&#%41"
"""Every character in it means something in a URL."""
BEARER = {"Authorization": f"Bearer {KEY}"}

needs_chromium = pytest.mark.skipif(chromium_missing() is not None, reason=str(chromium_missing()))


class Visit:
    """A client of one server; `ask` posts to ``/token`` and gives status and body."""

    def __init__(self, server: PageServer, session: aiohttp.ClientSession) -> None:
        self.server = server
        self.address = server.url.partition("#")[0]
        self.get = session.get
        self._session = session

    async def ask(self, *, headers: dict[str, str] | None = None, **wish: Any) -> tuple[int, dict[str, Any]]:
        """By default with the key, for a room."""
        sent = BEARER if headers is None else headers
        return await self.post({"room": "room-1", **wish}, sent)

    async def post(self, body: Any, headers: dict[str, str]) -> tuple[int, dict[str, Any]]:
        """Anything at all: bytes as they are, the rest as JSON."""
        given = {"data": body} if isinstance(body, bytes) else {"json": body}
        async with self._session.post(self.address + "token", headers=headers, **given) as response:
            return response.status, await response.json()


@asynccontextmanager
async def visit(**options: Any) -> AsyncIterator[Visit]:
    """A running server with a key, and a client of it."""
    server = PageServer(LIVEKIT, API_KEY, SECRET, AGENT, **{"key": KEY, **options})
    async with server, aiohttp.ClientSession() as session:
        yield Visit(server, session)


def _claims(token: str) -> dict[str, Any]:
    claims: dict[str, Any] = jwt.decode(token, SECRET, algorithms=["HS256"], issuer=API_KEY)
    return claims


async def test_a_token_lets_one_person_speak_in_one_room() -> None:
    """It joins that room only, publishes a microphone and text, and changes nothing about itself or the server."""
    async with visit() as page:
        status, ticket = await page.ask(name="Ana")
    assert status == 200
    assert (ticket["url"], ticket["room"]) == (LIVEKIT, "room-1")
    claims = _claims(ticket["token"])
    assert (claims["sub"], claims["name"]) == (ticket["identity"], "Ana")
    assert claims["video"] == {
        "roomJoin": True,
        "room": "room-1",
        "canPublish": True,
        "canSubscribe": True,
        "canPublishData": True,
        "canPublishSources": ["microphone"],
        "canUpdateOwnMetadata": False,
    }


async def test_a_token_brings_the_agent_of_the_rooms_conversation() -> None:
    """The dispatch travels in the token: agent and conversation are named, for the moment the room is created."""
    async with visit() as page:
        _, ticket = await page.ask(room='a "room"')
    [agent] = _claims(ticket["token"])["roomConfig"]["agents"]
    assert agent == {"agentName": AGENT, "metadata": '{"conversation_id": "a \\"room\\""}'}


async def test_an_agent_without_a_name_is_not_asked_for() -> None:
    """LiveKit dispatches it by itself; the name may become known while the page is up."""
    server = PageServer(LIVEKIT, API_KEY, SECRET, "", key=KEY)
    async with server, aiohttp.ClientSession() as session:
        page = Visit(server, session)
        _, ticket = await page.ask()
        assert "roomConfig" not in _claims(ticket["token"])
        server.agent_name = AGENT
        _, ticket = await page.ask()
    [agent] = _claims(ticket["token"])["roomConfig"]["agents"]
    assert agent["agentName"] == AGENT


async def test_a_token_is_short_lived() -> None:
    """Ten minutes."""
    async with visit() as page:
        _, ticket = await page.ask()
    claims = _claims(ticket["token"])
    assert claims["exp"] - claims["nbf"] == 600


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer wrong"},
        {"Authorization": f"Bearer {KEY}x"},
        {"Authorization": f"Basic {KEY}"},
        {"Authorization": "Bearer k\u00e9y"},
    ],
)
async def test_no_token_without_the_key(headers: dict[str, str]) -> None:
    """Anything but the key gets a sentence that says where the key is."""
    async with visit() as page:
        status, answer = await page.ask(headers=headers)
    assert status == 403
    assert answer == {
        "error": "The page's key is missing or wrong: open the address its server printed.",
        "code": "key",
    }


async def test_no_token_at_all_without_a_key_of_its_own() -> None:
    """A server started with neither a key nor open tokens is closed, whatever is sent."""
    async with visit(key=None) as page:
        for headers in ({}, BEARER, {"Authorization": "Bearer "}, {"Authorization": "Bearer None"}):
            status, answer = await page.ask(headers=headers)
            assert (status, answer["code"]) == (403, "closed")


async def test_open_tokens_are_for_everybody() -> None:
    """Only when it was said so; the address then needs no key."""
    async with visit(key=None, open_tokens=True) as page:
        status, _ = await page.ask(headers={})
        assert status == 200
        assert "#" not in page.server.url


async def test_the_address_carries_the_key_where_servers_do_not_see_it() -> None:
    """In the fragment, quoted."""
    async with visit() as page:
        assert page.server.url.endswith("/#key=k%2Be%2Fy%3D%26%23%2541")


async def test_an_identity_can_be_kept_with_its_proof() -> None:
    """The same person again, after a refresh and after a restart of the server: nothing is remembered here."""
    async with visit() as page:
        _, first = await page.ask()
    async with visit() as page:
        status, again = await page.ask(
            identity=first["identity"], identity_proof=first["identity_proof"], room="room-2"
        )
    assert status == 200
    assert (again["identity"], again["identity_proof"]) == (first["identity"], first["identity_proof"])
    assert _claims(again["token"])["sub"] == first["identity"]


async def test_nobody_becomes_somebody_else() -> None:
    """An identity without its own proof is refused: an agent's, another caller's, or one from another secret."""
    async with visit() as page:
        _, one = await page.ask()
        _, other = await page.ask()
        assert one["identity"] != other["identity"]
        for proof in ({}, {"identity_proof": ""}, {"identity_proof": other["identity_proof"]}, {"identity_proof": "é"}):
            status, answer = await page.ask(identity=one["identity"], **proof)
            assert (status, answer["code"]) == (403, "identity")
        status, _ = await page.ask(identity="agent-AJ_1", identity_proof=one["identity_proof"])
        assert status == 403
        status, answer = await page.ask(identity=one["identity"], identity_proof="\ud800")
        assert (status, answer["code"]) == (403, "identity")


@pytest.mark.parametrize(
    ("wish", "field"),
    [
        ({"room": ""}, "room"),
        ({"room": "r" * 129}, "room"),
        ({"room": "a\nb"}, "room"),
        ({"room": "a\ud800"}, "room"),
        ({"room": None}, "room"),
        ({"room": 7}, "room"),
        ({"name": ""}, "name"),
        ({"name": "n" * 129}, "name"),
        ({"name": ["Ana"]}, "name"),
        ({"identity": ""}, "identity"),
        ({"identity": {}}, "identity"),
    ],
)
async def test_names_are_writing_and_short(wish: dict[str, Any], field: str) -> None:
    """1 to 128 characters; the answer names the field and not its value."""
    async with visit() as page:
        status, answer = await page.ask(**wish)
    assert (status, answer["code"]) == (400, field)
    assert answer["error"] == f"{field}: must be text of 1 to 128 characters, none of them a control character."


@pytest.mark.parametrize("room", ["ф" * 128, "👩\u200d🔧", "a\u00a0b", "\u0645\u06cc\u200c\u062e"])
async def test_any_writing_names_a_room(room: str) -> None:
    """128 characters of any script, with its joiners and spaces."""
    async with visit() as page:
        status, ticket = await page.ask(room=room)
    assert status == 200
    assert _claims(ticket["token"])["video"]["room"] == room


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"7", b"[" * 4000, b"\xff"])
async def test_a_body_that_is_no_object_is_refused(body: bytes) -> None:
    """Without a stack trace, also for the deepest nesting that fits."""
    async with visit() as page:
        status, answer = await page.post(body, {**BEARER, "Content-Type": "application/json"})
    assert (status, answer["code"]) == (400, "body")


async def test_a_form_is_refused() -> None:
    """A form can be sent by another site's page without asking; JSON cannot."""
    async with visit() as page:
        status, answer = await page.post(b'{"room": "room-1"}', {**BEARER, "Content-Type": "text/plain"})
    assert (status, answer["code"]) == (415, "body")


async def test_a_long_body_is_refused() -> None:
    """More than 4 KiB are not read."""
    async with visit() as page:
        status, _ = await page.ask(padding="x" * 4096)
    assert status == 413


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "", "[", "[::1"])
async def test_a_foreign_host_name_is_refused(host: str) -> None:
    """A name that somebody pointed at this machine gets neither the page nor a token."""
    async with visit(key=None, open_tokens=True) as page:
        async with page.get(page.address, headers={"Host": host}) as response:
            assert response.status in {400, 403}
        status, _ = await page.ask(headers={"Host": host})
        assert status in {400, 403}


@pytest.mark.parametrize("host", ["127.0.0.1:1", "localhost", "LOCALHOST:8000", "[::1]:8000"])
async def test_this_machines_own_names_are_fine(host: str) -> None:
    """With any port: a tunnel may lead here."""
    async with visit() as page, page.get(page.address, headers={"Host": host}) as response:
        assert response.status == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:1", "http://[", ""])
async def test_another_sites_page_is_refused(origin: str) -> None:
    """Even with open tokens; another port of this machine is another site."""
    async with visit(key=None, open_tokens=True) as page:
        status, answer = await page.ask(headers={"Origin": origin})
    assert (status, answer["code"]) == (403, "origin")


async def test_the_page_itself_may_ask_and_nobody_else_reads_the_answer() -> None:
    """Its own origin is accepted; no CORS header, nothing kept in a cache."""
    async with visit() as page, aiohttp.ClientSession() as session:
        headers = {**BEARER, "Origin": page.address.rstrip("/")}
        async with session.post(page.address + "token", json={"room": "room-1"}, headers=headers) as response:
            assert response.status == 200
            assert response.headers["Cache-Control"] == "no-store"
            assert not [name for name in response.headers if name.startswith("Access-Control")]
        async with session.options(page.address + "token", headers=headers) as response:
            assert response.status == 405


async def test_an_agent_is_called_before_the_token_is_given() -> None:
    """Once for each token, with the room; not for a refused one."""
    rooms: list[str] = []

    async def on_join(room: str) -> None:
        rooms.append(room)

    async with visit(on_join=on_join) as page:
        await page.ask(headers={})
        await page.ask(room="")
        await page.ask(identity="caller-1")
        assert rooms == []
        assert (await page.ask(room="room-7"))[0] == 200
    assert rooms == ["room-7"]


async def test_an_agent_that_cannot_be_called_costs_no_token(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged, with the room; the caller gets in."""

    async def on_join(_room: str) -> None:
        message = "no worker"
        raise RuntimeError(message)

    async with visit(on_join=on_join) as page:
        assert (await page.ask())[0] == 200
    [record] = [record for record in caplog.records if record.name == page_module.__name__]
    assert record.levelno == logging.ERROR
    assert record.__dict__["room"] == "room-1"


async def test_an_agent_that_is_called_for_ever_costs_no_token() -> None:
    """The call is given up, and cancelled."""
    cancelled = asyncio.Event()

    async def on_join(_room: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async with visit(on_join=on_join, timing=Timing(page_join=0.01)) as page:
        assert (await page.ask())[0] == 200
    assert cancelled.is_set()


async def test_every_answer_says_what_the_page_may_do() -> None:
    """Files, tokens, refusals and what is not there carry the policy; scripts come from here only."""
    async with visit() as page:
        for path in ("", "main.js", "token", "nothing"):
            async with page.get(page.address + path) as response:
                policy = response.headers["Content-Security-Policy"].split("; ")
                assert response.headers["X-Content-Type-Options"] == "nosniff"
            assert {"default-src 'none'", "script-src 'self'", "frame-ancestors 'none'"} <= set(policy)
            assert "connect-src 'self' ws://127.0.0.1:7880 http://127.0.0.1:7880" in policy


@pytest.mark.parametrize(
    ("url", "reached", "origins"),
    [
        ("http://lk:7880", "ws://lk:7880", "ws://lk:7880 http://lk:7880"),
        ("wss://lk/path", "wss://lk/path", "wss://lk https://lk"),
        (
            "https://a.livekit.cloud",
            "wss://a.livekit.cloud",
            "wss://a.livekit.cloud https://a.livekit.cloud wss://*.livekit.cloud https://*.livekit.cloud",
        ),
    ],
)
async def test_the_policy_follows_livekits_address(url: str, reached: str, origins: str) -> None:
    """Any of LiveKit's ways to write it; LiveKit Cloud sends its clients on to other names."""
    server = PageServer(url, API_KEY, SECRET, AGENT, key=KEY)
    async with server, aiohttp.ClientSession() as session:
        page = Visit(server, session)
        _, ticket = await page.ask()
        async with page.get(page.address) as response:
            assert f"connect-src 'self' {origins};" in response.headers["Content-Security-Policy"]
    assert ticket["url"] == reached


@pytest.mark.parametrize("url", ["", "127.0.0.1:7880", "ftp://lk", "ws://", "ws://user:pass@lk"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    """When the server is made, and not by the first caller."""
    with pytest.raises(InvalidInputError, match="livekit_url"):
        PageServer(url, API_KEY, SECRET, AGENT, key=KEY)


@pytest.mark.parametrize("key", ["", "two words", "kéy", "line\nbreak"])
def test_a_key_that_a_browser_cannot_send_is_refused(key: str) -> None:
    """An empty one would even be no key."""
    with pytest.raises(InvalidInputError, match="key: must be ASCII"):
        PageServer(LIVEKIT, API_KEY, SECRET, AGENT, key=key)


@pytest.mark.parametrize("missing", [("", SECRET, AGENT), (API_KEY, "", AGENT)])
def test_what_signs_is_not_empty(missing: tuple[str, str, str]) -> None:
    """LiveKit's library would look into the environment for them."""
    with pytest.raises(InvalidInputError, match="must not be empty"):
        PageServer(LIVEKIT, *missing, key=KEY)


async def test_secrets_are_in_no_text(caplog: pytest.LogCaptureFixture) -> None:
    """Neither in the server's repr nor in what is logged on the way, at any level."""
    caplog.set_level(logging.DEBUG)
    async with visit() as page:
        _, ticket = await page.ask()
        await page.ask(headers={})
        text = repr(page.server) + repr(vars(page.server)) + caplog.text
    for secret in (SECRET, ticket["token"], ticket["identity_proof"]):
        assert secret not in text


async def test_the_address_is_known_once_it_listens() -> None:
    """And not before."""
    with pytest.raises(RuntimeError, match="not running"):
        _ = PageServer(LIVEKIT, API_KEY, SECRET, AGENT, key=KEY).url


async def test_every_interface_is_opened_under_a_name_that_works() -> None:
    """A browser cannot open 0.0.0.0, and gets no microphone from it."""
    async with visit(host="0.0.0.0") as page:  # noqa: S104  # on purpose
        assert page.server.url.startswith("http://localhost:")


async def test_every_file_of_the_page_is_served() -> None:
    """What lies in `web/` and is no package file has an address and its own type; nothing above it has."""
    kinds = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
    async with visit() as page:
        for file in (file for file in WEB.iterdir() if file.suffix in kinds):
            path = "" if file.name == "index.html" else file.name
            async with page.get(page.address + path) as response:
                assert (response.status, response.content_type) == (200, kinds[file.suffix])
                assert await response.read() == file.read_bytes()
        for path in ("vendor/README.md", "..%2fpage.py", "vendor/livekit-client.umd.js"):
            async with page.get(page.address + path) as response:
                assert response.status == 404


@pytest.fixture
def bare_web(tmp_path: Path) -> Path:
    """The page's own files, without the library."""
    return shutil.copytree(WEB, tmp_path / "web", ignore=shutil.ignore_patterns("vendor"))


async def test_a_missing_library_is_one_sentence(bare_web: Path) -> None:
    """It says what to run."""
    async with visit(web_root=bare_web) as page, page.get(page.address + "livekit-client.mjs") as response:
        assert response.status == 404
        assert await response.json() == {"error": LIBRARY_MISSING, "code": "library"}
    assert "install conversation-actors again" in LIBRARY_MISSING


async def test_the_library_comes_with_the_page() -> None:
    """As a script, from our own origin, without npm: its bytes are those that the README beside it names."""
    told = (WEB / LIBRARY).with_name("README.md").read_text()
    async with visit() as page, page.get(page.address + "livekit-client.mjs") as response:
        assert (response.status, response.content_type) == (200, "text/javascript")
        assert f"`{hashlib.sha256(await response.read()).hexdigest()}`" in told


@needs_chromium
async def test_a_browser_gets_livekits_names_from_the_library() -> None:
    """The page loads the library itself, and the button to join can be pressed."""
    async with visit() as page, open_page() as tab:
        await tab.goto(page.server.url)
        await tab.wait_for_selector("#join:enabled")
        assert await tab.evaluate("() => typeof globalThis.LivekitClient.Room") == "function"


@needs_chromium
async def test_a_browser_shows_the_missing_librarys_sentence(bare_web: Path) -> None:
    """In place of a button that does nothing."""
    async with visit(web_root=bare_web) as page, open_page() as tab:
        await tab.goto(page.server.url)
        await tab.wait_for_selector("#status[data-state=blocked]")
        assert await tab.inner_text("#status") == LIBRARY_MISSING
        assert await tab.is_disabled("#join")


@needs_chromium
async def test_a_browser_hides_the_key_and_keeps_room_and_person(bare_web: Path) -> None:
    """The key leaves the address bar and still works after a reload; a random room stays in the address."""
    _write_silent_library(bare_web)
    async with visit(web_root=bare_web) as page, open_page() as tab:
        problems: list[str] = []
        tab.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        tab.on("pageerror", lambda error: problems.append(str(error)))
        identities = []
        await tab.goto(page.server.url)
        address = tab.url
        for _ in range(2):
            await tab.click("#join")
            await tab.wait_for_selector("#status[data-state=waiting]")
            identities.append((await tab.evaluate("() => window.callState"))["identity"])
            await tab.click("#leave")
            await tab.wait_for_selector("#status[data-state=idle]")
            await tab.reload()
            assert tab.url == address
    assert KEY not in address
    assert "#" not in address
    assert "?room=room-" in address
    assert identities[0].startswith("caller-")
    assert identities[0] == identities[1]
    assert problems == []


@needs_chromium
async def test_a_browser_without_the_key_says_where_it_is(bare_web: Path) -> None:
    """The server's own sentence, and no further attempts."""
    _write_silent_library(bare_web)
    async with visit(web_root=bare_web) as page, open_page() as tab:
        await tab.goto(page.address)
        await tab.click("#join")
        await tab.wait_for_selector("#status[data-state=ended]")
        assert "open the address its server printed" in await tab.inner_text("#status")
        assert await tab.is_visible("#join")


def _write_silent_library(web_root: Path) -> None:
    """A stand-in for LiveKit's client: it is connected at once to a room where nobody is."""
    (web_root / LIBRARY).parent.mkdir(parents=True)
    (web_root / LIBRARY).write_text(
        """
        const named = () => new Proxy({}, { get: (_, name) => name });
        globalThis.LivekitClient = {
          RoomEvent: named(),
          DisconnectReason: named(),
          ConnectionErrorReason: named(),
          LogLevel: named(),
          ConnectionError: class extends Error {},
          setLogLevel: () => {},
          Room: class {
            state = "disconnected";
            canPlaybackAudio = true;
            remoteParticipants = new Map();
            localParticipant = { identity: "me", attributes: {}, setMicrophoneEnabled: async () => {} };
            on() {}
            registerTextStreamHandler() {}
            async connect() { this.state = "connected"; }
            async startAudio() {}
            async disconnect() {}
          },
        };
        """
    )
