"""A visit to the caller's page in a real browser, with a stand-in for LiveKit's client.

Nobody waits for ever, nothing that was typed or said is lost by a refresh, and it can be read and used on any screen.
"""

import asyncio
import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from agent_worker.development.agent_calls import Waiting
from agent_worker.development.page import WEB, PageServer
from conversation_actors import Message, Participant, Snapshot
from conversation_actors.errors import StoreUnavailableError
from tests.support.browser import DESKTOP, PHONE, chromium_missing, open_page
from tests.support.page_client import write_client

if TYPE_CHECKING:
    from playwright.async_api import Page

KEY, ROOM = "a-key", "room-1"
NARROW = (320, 568)
needs_chromium = pytest.mark.skipif(chromium_missing() is not None, reason=str(chromium_missing()))


def conversation(*items: Message, people: Mapping[str, str]) -> Snapshot:
    """What a conversation holds; `people`: names by identity."""
    return Snapshot(
        conversation_id=ROOM,
        seq=len(items),
        epoch=1,
        items=items,
        participants={one: Participant(identity=one, name=name) for one, name in people.items()},
        attributes={},
        leases={},
        summary=None,
        closing=None,
        retention=None,
    )


def said(role: Any, text: str, **more: Any) -> Message:
    """One message."""
    return Message(role=role, content=text, **more)


@dataclass
class Visit:
    """A page's server, and what it was asked."""

    server: PageServer
    address: str
    waiting: Waiting = Waiting.AGENT
    missed: list[str] = field(default_factory=list)
    reads: int = 0
    items: list[Message] = field(default_factory=list)
    others: dict[str, str] = field(default_factory=dict)
    error: Exception | None = None
    identity: str = ""
    may_read: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        """Nothing is held up."""
        self.may_read.set()

    async def missing(self, room: str) -> Waiting:
        """Somebody has no agent."""
        self.missed.append(room)
        return self.waiting

    async def read(self, room: str) -> Snapshot | None:
        """What is stored; nothing before the caller has been there."""
        self.reads += 1
        await self.may_read.wait()
        if self.error is not None:
            raise self.error
        if room != ROOM or not self.items:
            return None
        return conversation(*self.items, people={self.identity: "", **self.others})


@pytest.fixture
def web_root(tmp_path: Path) -> Path:
    """The page's files, with a stand-in for LiveKit's client."""
    root = shutil.copytree(WEB, tmp_path / "web", ignore=shutil.ignore_patterns("node_modules", "vendor"))
    write_client(root)
    return Path(root)


@asynccontextmanager
async def visit(web_root: Path = WEB) -> AsyncIterator[Visit]:
    """A page's server with a conversation behind it."""
    made: Visit

    async def missing(room: str) -> Waiting:
        return await made.missing(room)

    async def read(room: str) -> Snapshot | None:
        return await made.read(room)

    server = PageServer(
        "ws://127.0.0.1:7880", "key", "s" * 32, "agent", key=KEY, on_missing=missing, read=read, web_root=web_root
    )
    async with server:
        made = Visit(server, server.url.partition("#")[0])
        yield made


@asynccontextmanager
async def joined(
    web_root: Path, *, size: tuple[int, int] = DESKTOP, dark: bool = False, room: str = ROOM
) -> "AsyncIterator[tuple[Visit, Page]]":
    """A page that has joined a room where nobody else is."""
    async with visit(web_root) as there, open_page(size=size, dark=dark) as tab:
        await tab.goto(f"{there.address}?room={room}#key={KEY}")
        await join(tab)
        there.identity = (await tab.evaluate("() => window.callState"))["identity"]
        yield there, tab


async def join(tab: "Page") -> None:
    """Press the button, and wait until the page is in the room."""
    await tab.click("#join")
    await tab.wait_for_selector("#status[data-state=waiting]")


async def bring(tab: "Page", identity: str = "agent-AJ_1", **told: Any) -> None:
    """Have somebody come into the room, by default an agent that listens."""
    await tab.evaluate("([identity, told]) => window.room.bring(identity, told)", [identity, told])


async def say(tab: "Page", text: str) -> None:
    """Type something, and send it."""
    await tab.fill("#text", text)
    await tab.click("#send")


async def rejoin(tab: "Page") -> None:
    """Refresh, and wait until it is in the room again."""
    await tab.reload()
    await tab.wait_for_function("() => window.room?.state === 'connected'")


async def lines(tab: "Page") -> list[tuple[str, str]]:
    """Who said what, as it stands on the page."""
    told = await tab.eval_on_selector_all(
        "#captions li[data-speaker]",
        "all => all.map(one => [one.dataset.speaker, one.querySelector('.text').innerText])",
    )
    return [(speaker, text) for speaker, text in told]


async def wait_for_lines(tab: "Page", *wanted: tuple[str, str]) -> None:
    """Wait until the page shows these lines, and no others."""
    script = """wanted => JSON.stringify([...document.querySelectorAll("#captions li[data-speaker]")]
        .map(one => [one.dataset.speaker, one.querySelector(".text").innerText])) === JSON.stringify(wanted)"""
    try:
        await tab.wait_for_function(script, arg=[list(one) for one in wanted], timeout=10_000)
    except Exception as error:
        error.add_note(f"it shows {await lines(tab)}")
        raise


# Waiting for an agent


@needs_chromium
@pytest.mark.parametrize(
    ("waiting", "sentence"),
    [
        (Waiting.WORKER, "its worker is not registered yet"),
        (Waiting.AGENT, "Waiting for the agent…"),
        (Waiting.OVERDUE, "asked for again every ten seconds"),
        (Waiting.UNANSWERED, "a server does not answer"),
    ],
)
async def test_the_page_says_what_it_waits_for(web_root: Path, waiting: Waiting, sentence: str) -> None:
    """In one sentence, and it asks for the agent again by itself, until one is there."""
    async with joined(web_root) as (there, tab):
        there.waiting = waiting
        await tab.wait_for_function("told => document.querySelector('#status').innerText.includes(told)", arg=sentence)
        while len(there.missed) < 2:
            await tab.wait_for_timeout(50)
        await bring(tab)
        await tab.wait_for_selector("#status[data-state=connected]")
        assert await tab.inner_text("#status") == "Connected"
    assert set(there.missed) == {ROOM}


# A refresh


@needs_chromium
async def test_unsent_lines_survive_a_refresh(web_root: Path) -> None:
    """They are there, in order and with the draft, and are sent when an agent listens: each once."""
    async with joined(web_root) as (_, tab):
        await say(tab, "one")
        await say(tab, "two")
        await tab.locator("#text").press_sequentially("thr")
        await rejoin(tab)
        assert await lines(tab) == [("you", "one"), ("you", "two")]
        assert await tab.input_value("#text") == "thr"
        await bring(tab)
        await tab.wait_for_function("() => window.sent().length === 2")
        await rejoin(tab)
        await bring(tab)
        await say(tab, "three")
        await tab.wait_for_function("() => window.sent().length === 3")
        assert await tab.evaluate("() => window.sent()") == ["one", "two", "three"]


@needs_chromium
async def test_unsent_lines_belong_to_their_room(web_root: Path) -> None:
    """Another room, in the same tab, gets none of them."""
    async with joined(web_root) as (there, tab):
        await say(tab, "for this room only")
        await tab.goto(f"{there.address}?room=room-2")
        await join(tab)
        await bring(tab)
        await tab.wait_for_selector("#status[data-state=connected]")
        assert await lines(tab) == []
        assert await tab.evaluate("() => window.sent()") == []


@needs_chromium
async def test_a_line_that_breaks_with_the_connection_is_sent_again(web_root: Path) -> None:
    """What certainly was not sent waits on, in its place."""
    async with joined(web_root) as (_, tab):
        await tab.evaluate("() => { window.brokenBefore = true }")
        await bring(tab)
        await say(tab, "one")
        await tab.wait_for_selector("#captions li[data-state=waiting]")
        await rejoin(tab)
        await bring(tab)
        await tab.wait_for_selector("#captions li[data-state=final]")
        assert await tab.evaluate("() => window.sent()") == ["one"]


@needs_chromium
async def test_a_line_that_cannot_be_sent_is_tried_again_by_itself(web_root: Path) -> None:
    """Whoever is in the room may stay as they are, and nothing else gives a reason to try."""
    async with joined(web_root) as (_, tab):
        await tab.evaluate("() => { window.brokenBefore = true }")
        await bring(tab)
        await tab.wait_for_function("() => window.callState.agent !== null")
        await tab.wait_for_timeout(2500)  # the agent has settled: no timer of its coming is left
        await say(tab, "one")
        await tab.wait_for_selector("#captions li[data-state=waiting]")
        await tab.evaluate("() => { window.brokenBefore = false }")
        await tab.wait_for_selector("#captions li[data-state=final]", timeout=10_000)
        assert await tab.evaluate("() => window.sent()") == ["one"]


@needs_chromium
async def test_a_refresh_in_the_middle_of_sending_sends_nothing_twice(web_root: Path) -> None:
    """The page says that it does not know; where the conversation has the line, it does."""
    async with joined(web_root) as (there, tab):
        await tab.evaluate("() => { window.neverSent = true }")
        await bring(tab)
        await say(tab, "one")
        await tab.wait_for_function("() => window.sent().length === 1")
        await rejoin(tab)
        await tab.wait_for_selector("#captions li[data-state=unsure]")
        assert "may not have been sent" in await tab.inner_text("#captions")
        await tab.evaluate("() => { window.neverSent = true }")
        await bring(tab)
        await say(tab, "two")
        await tab.wait_for_function("() => window.sent().length === 2")
        there.items = [said("user", "one"), said("user", "two")]
        await rejoin(tab)
        await wait_for_lines(tab, ("you", "one"), ("you", "two"))
        assert await tab.locator("#captions li[data-state=final]").count() == 2
        assert await tab.evaluate("() => window.sent()") == ["one", "two"]


@needs_chromium
@pytest.mark.parametrize(
    ("kept", "times", "refreshed"),
    [(["hello?"], 2, False), (["hello?"], 2, True), (["hello?", "Where is my order?"], 1, True)],
)
async def test_what_died_with_its_agent_is_sent_to_the_next_one(
    web_root: Path, kept: list[str], times: int, *, refreshed: bool
) -> None:
    """A line sent to an agent of which nothing was heard again: once more, unless the conversation has it."""
    async with joined(web_root) as (there, tab):
        await bring(tab)
        await say(tab, "Where is my order?")
        await tab.wait_for_function("() => window.sent().length === 1")
        there.items = [said("user", text) for text in kept]
        if refreshed:
            await rejoin(tab)
        else:
            await tab.evaluate("() => window.room.take('agent-AJ_1')")
        await bring(tab, "agent-AJ_2")
        await say(tab, "Still there?")
        await tab.wait_for_function("() => window.sent().includes('Still there?')")
        assert await tab.evaluate("() => window.sent()") == [*["Where is my order?"] * times, "Still there?"]
        await wait_for_lines(tab, ("you", "hello?"), ("you", "Where is my order?"), ("you", "Still there?"))


@needs_chromium
@pytest.mark.parametrize("answered", [True, False])
async def test_what_an_agent_lived_to_answer_is_not_sent_again(web_root: Path, *, answered: bool) -> None:
    """Who speaks behind a line has got it; and where nothing of a conversation can be read, nothing is known."""
    async with joined(web_root) as (there, tab):
        await bring(tab)
        await say(tab, "Where is my order?")
        await tab.wait_for_function("() => window.sent().length === 1")
        if answered:
            await tab.evaluate("() => window.room.say('agent-AJ_1', 'On its way.')")
            there.items = [said("user", "it was taken out of the history")]
        await tab.evaluate("() => window.room.take('agent-AJ_1')")
        await bring(tab, "agent-AJ_2")
        await say(tab, "Thanks!")
        await tab.wait_for_function("() => window.sent().includes('Thanks!')")
        assert await tab.evaluate("() => window.sent()") == ["Where is my order?", "Thanks!"]


@needs_chromium
async def test_a_conversation_that_cannot_be_read_holds_nothing_up(web_root: Path) -> None:
    """What is typed then is sent; what may have been lost is looked for again."""
    async with joined(web_root) as (there, tab):
        await bring(tab)
        await say(tab, "Where is my order?")
        await tab.wait_for_function("() => window.sent().length === 1")
        there.error = StoreUnavailableError("no answer")
        await tab.evaluate("() => window.room.take('agent-AJ_1')")
        await bring(tab, "agent-AJ_2")
        await say(tab, "Still there?")
        await tab.wait_for_function("() => window.sent().length === 2")
        reads = there.reads
        for _ in range(50):  # each is a moment to look again
            await bring(tab, "agent-AJ_2")
        there.error, there.items = None, [said("user", "Still there?")]
        await tab.wait_for_function("() => window.sent().length === 3")
        assert await tab.evaluate("() => window.sent()") == ["Where is my order?", "Still there?", "Where is my order?"]
        assert there.reads - reads <= 3


@needs_chromium
async def test_who_leaves_while_a_lost_line_is_looked_for_sends_it_to_nobody(web_root: Path) -> None:
    """It belongs to the call that is over."""
    async with joined(web_root) as (there, tab):
        await bring(tab)
        await say(tab, "one")
        await tab.wait_for_function("() => window.sent().length === 1")
        there.items = [said("user", "something else")]
        there.may_read.clear()
        reads = there.reads
        await tab.evaluate("() => window.room.take('agent-AJ_1')")
        await bring(tab, "agent-AJ_2")
        while there.reads == reads:
            await tab.wait_for_timeout(20)
        await tab.click("#leave")
        there.may_read.set()
        await wait_for_lines(tab, ("you", "something else"), ("you", "one"))
        await join(tab)
        await bring(tab, "agent-AJ_3")
        await say(tab, "two")
        await tab.wait_for_function("() => window.sent().includes('two')")
        assert await tab.evaluate("() => window.sent()") == ["one", "two"]


@needs_chromium
async def test_leaving_gives_up_what_was_not_sent(web_root: Path) -> None:
    """It is marked, and does not come back with the next call."""
    async with joined(web_root) as (there, tab):
        await bring(tab)
        await say(tab, "none")
        await tab.wait_for_function("() => window.sent().length === 1")
        there.items = [said("user", "something else")]
        await tab.evaluate("() => window.room.take('agent-AJ_1')")
        await say(tab, "one")
        await tab.click("#leave")
        await tab.wait_for_selector("#captions li[data-state=unsent]")
        await join(tab)
        await bring(tab)
        await say(tab, "two")
        await tab.wait_for_function("() => window.sent().length === 2")
        assert await tab.evaluate("() => window.sent()") == ["none", "two"]


@needs_chromium
async def test_the_conversation_is_there_after_a_refresh(web_root: Path) -> None:
    """Both sides of it, in order, under their names; tools and instructions are not words that were said."""
    async with joined(web_root) as (there, tab):
        there.others = {"ben": "Ben"}
        there.items = [
            said("system", "Be brief."),
            said("user", "Where is my order?"),
            said("assistant", "On its", interrupted=True),
            said("user", "Mine too?", extra={"participant": {"identity": "ben"}}),
            said("user", "Thanks!", extra={"participant": {"identity": there.identity}}),
        ]
        there.items[1].extra["participant"] = {"identity": there.identity}
        await rejoin(tab)
        shown = (("you", "Where is my order?"), ("agent", "On its"), ("other", "Mine too?"), ("you", "Thanks!"))
        await wait_for_lines(tab, *shown)
        assert await tab.eval_on_selector_all("#captions .who", "all => all.map(one => one.innerText)") == [
            "You", "Agent", "Ben", "You",
        ]  # fmt: skip
        assert await tab.locator("#captions li[data-state=cut]").count() == 1
        assert "cut off" in await tab.inner_text("#captions li[data-speaker=agent]")


@needs_chromium
async def test_what_was_heard_live_is_shown_once(web_root: Path) -> None:
    """A connection that is lost and found again shows what was missed, in its place, and nothing twice."""
    async with joined(web_root) as (there, tab):
        await bring(tab)
        await tab.evaluate("() => window.room.say('agent-AJ_1', 'Hello,  how can I help?')")
        await tab.wait_for_selector("#captions li[data-speaker=agent]")
        await say(tab, "Where is my order?")
        await say(tab, "Hello?")
        there.items = [
            said("assistant", "Hello, how can I help?"),
            said("user", "Where is my order?"),
            said("assistant", "On its way."),
            said("user", "Hello?"),
        ]
        await tab.evaluate("() => window.room.tell('Reconnecting')")
        await tab.evaluate("() => window.room.tell('Reconnected')")
        await wait_for_lines(
            tab,
            ("agent", "Hello,  how can I help?"),
            ("you", "Where is my order?"),
            ("agent", "On its way."),
            ("you", "Hello?"),
        )


@needs_chromium
async def test_what_an_agent_says_during_a_refresh_is_shown_behind_it(web_root: Path) -> None:
    """Nobody who comes in the middle of it hears it as text; when it was said, it is stored."""
    async with joined(web_root) as (there, tab):
        await bring(tab, state="speaking")
        reads = there.reads
        await tab.evaluate("() => window.room.tell('Reconnected')")
        while there.reads == reads:
            await tab.wait_for_timeout(20)
        there.items = [said("assistant", "A long answer.")]
        assert await lines(tab) == []
        await bring(tab)
        await wait_for_lines(tab, ("agent", "A long answer."))


# Who is told what was said


async def asked(there: Visit, path: str, **wish: Any) -> tuple[int, dict[str, Any]]:
    """What the server answers to somebody with the key."""
    headers = {"Authorization": f"Bearer {KEY}"}
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.post(there.address + path, json={"room": ROOM, **wish}) as answer,
    ):
        told: dict[str, Any] = await answer.json()
        return answer.status, told


async def ticket(there: Visit) -> dict[str, str]:
    """Who somebody is, with the proof of it."""
    _, told = await asked(there, "token")
    return {name: told[name] for name in ("identity", "identity_proof")}


async def test_only_who_was_there_is_told_what_was_said() -> None:
    """An identity that is proved, and that the conversation knows; others learn not even that it exists."""
    async with visit() as there:
        one, other = await ticket(there), await ticket(there)
        there.identity, there.items = one["identity"], [said("user", "my number is 4711")]
        status, told = await asked(there, "conversation", **one)
        assert (status, [line["text"] for line in told["lines"]]) == (200, ["my number is 4711"])
        assert await asked(there, "conversation", **other) == (200, {"lines": []})
        assert await asked(there, "conversation") == (200, {"lines": []})
        status, told = await asked(there, "conversation", identity=one["identity"], identity_proof="x")
        assert (status, told["code"]) == (403, "identity")


@pytest.mark.parametrize("path", ["agent", "conversation"])
async def test_questions_are_guarded_as_tokens_are(path: str) -> None:
    """No key, no answer; a form of another site is none."""
    async with visit() as there, aiohttp.ClientSession() as session:
        async with session.post(there.address + path, json={"room": ROOM}) as answer:
            assert (answer.status, (await answer.json())["code"]) == (403, "key")
        headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "text/plain"}
        async with session.post(there.address + path, data=b"{}", headers=headers) as answer:
            assert answer.status == 415
        assert (await asked(there, path, room=""))[0] == 400
    assert there.missed == []


async def test_a_conversation_that_cannot_be_read_is_one_sentence() -> None:
    """The page shows what it has, and the call goes on."""
    async with visit() as there:
        one, there.error = await ticket(there), StoreUnavailableError("no answer")
        status, told = await asked(there, "conversation", **one)
    assert (status, told) == (503, {"error": "What was said before cannot be read just now.", "code": "read"})


async def test_a_long_conversation_is_shown_by_its_end() -> None:
    """The newest two hundred lines."""
    async with visit() as there:
        one = await ticket(there)
        there.identity, there.items = one["identity"], [said("user", str(number)) for number in range(250)]
        _, told = await asked(there, "conversation", **one)
    assert [line["text"] for line in told["lines"]] == [str(number) for number in range(50, 250)]


# Names, sizes, colours and the keyboard


@needs_chromium
async def test_people_have_names_and_no_identities(web_root: Path) -> None:
    """An agent is "Agent" and a stranger "Guest", unless they say what they are called."""
    async with joined(web_root) as (there, tab):
        await bring(tab, "agent-AJ_h3k2")
        await bring(tab, "caller-12", isAgent=False)
        assert await tab.eval_on_selector_all("#people li", "all => all.map(one => one.innerText.split('\\n'))") == [
            ["You"], ["Agent", "listening"], ["Guest"],
        ]  # fmt: skip
        await bring(tab, "agent-AJ_h3k2", name="Front desk")
        await bring(tab, "caller-12", name="Ben", isAgent=False)
        people = await tab.inner_text("#people")
        assert people.split("\n") == ["You", "Front desk", "agent, listening", "Ben", "guest"]
        assert "AJ_" not in await tab.inner_text("body")
        assert there.identity not in await tab.inner_text("body")


_OVERFLOWING = """() => [...document.querySelectorAll("body *")].filter(one => {
    const { left, right, width } = one.getBoundingClientRect();
    return width > 1 && one.checkVisibility() && (left < -0.5 || right > innerWidth + 0.5);
}).map(one => one.id || one.className || one.tagName)"""


@needs_chromium
async def test_everything_wraps_on_a_narrow_screen(web_root: Path) -> None:
    """320 px hold the longest names, words and sentences; nothing is cut off, nothing has to be scrolled sideways."""
    long = "W" * 60
    async with joined(web_root, size=NARROW, room="r" * 128) as (there, tab):
        there.waiting = Waiting.OVERDUE
        await tab.wait_for_function("() => document.querySelector('#status').innerText.includes('ten seconds')")
        await bring(tab, name=f"Agent {long}")
        await bring(tab, "ben", name=long, isAgent=False)
        await tab.evaluate(f"() => window.room.say('agent-AJ_1', 'A word: {long * 2}')")
        await say(tab, long)
        await tab.evaluate(
            "() => { window.room.canPlaybackAudio = false; window.room.tell('AudioPlaybackStatusChanged') }"
        )
        assert await tab.evaluate(_OVERFLOWING) == []
        assert await tab.evaluate("() => document.documentElement.scrollWidth") <= NARROW[0]
        cut = "all => all.filter(one => one.scrollWidth > one.clientWidth + 1).map(one => one.className)"
        assert await tab.eval_on_selector_all("#people span, .where, #status, button", cut) == []
        await tab.click("#leave")
        assert await tab.evaluate(_OVERFLOWING) == []


@needs_chromium
async def test_the_focus_stays_where_it_was(web_root: Path) -> None:
    """Behind sending, while people come and go or the connection is lost, and behind a refresh."""
    async with joined(web_root) as (_, tab):
        focus = "() => document.activeElement.id"
        assert await tab.evaluate(focus) == "text"
        await say(tab, "one")
        assert await tab.evaluate(focus) == "text"
        await tab.focus("#mute")
        for what in ("Reconnecting", "Reconnected", "ActiveSpeakersChanged"):
            await tab.evaluate("what => window.room.tell(what)", what)
        await bring(tab)
        await tab.evaluate("() => window.room.tell('Disconnected')")
        await tab.wait_for_selector("#status[data-state=retrying]")
        assert await tab.evaluate(focus) == "mute"
        await tab.wait_for_selector("#status:not([data-state=retrying])")
        await rejoin(tab)
        assert await tab.evaluate(focus) == "mute"
        await tab.evaluate("() => window.room.tell('Disconnected', 'ROOM_DELETED')")
        await tab.wait_for_selector("#status[data-state=ended]")
        assert await tab.evaluate(focus) == "join"


_CONTRAST = """() => {
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const rgba = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  };
  const over = ([r, g, b, a], below) => [r, g, b].map((value, at) => value * a + below[at] * (1 - a));
  const ground = (one) => {
    if (one === null) return [255, 255, 255];
    return over(rgba(getComputedStyle(one).backgroundColor), ground(one.parentElement));
  };
  const light = (colour) => {
    const [r, g, b] = colour.map((value) => value / 255)
      .map((value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const contrast = (one, other) => {
    const [low, high] = [light(one), light(other)].sort((a, b) => a - b);
    return (high + 0.05) / (low + 0.05);
  };
  const found = [];
  const check = (what, colour, below, least) => {
    const [, , , alpha] = rgba(colour);
    if (alpha === 0) return;
    const reached = contrast(over(rgba(colour), below), below);
    if (reached < least) found.push(`${what}: ${reached.toFixed(2)} < ${least}`);
    else counts[least] = (counts[least] ?? 0) + 1;
  };
  const counts = {};
  for (const one of document.querySelectorAll("body *")) {
    if (!one.checkVisibility() || one.closest("audio, [disabled]")) continue;
    const style = getComputedStyle(one);
    const name = `${one.tagName}#${one.id}.${one.className} ${JSON.stringify(one.dataset)}`;
    const below = ground(one.parentElement);
    const hasText = [...one.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (hasText || one.tagName === "INPUT") check(`text of ${name}`, style.color, ground(one), 4.5);
    const hint = getComputedStyle(one, "::placeholder").color;
    if (one.placeholder) check(`placeholder of ${name}`, hint, ground(one), 4.5);
    if (parseFloat(style.borderTopWidth) > 0 && style.borderTopStyle !== "none") {
      check(`border of ${name}`, style.borderTopColor, below, 3);
      check(`border of ${name}, inside`, style.borderTopColor, ground(one), 3);
    }
    const dot = getComputedStyle(one, "::before");
    const isDot = dot.content !== "none" && parseFloat(dot.width) > 0;
    if (isDot) check(`dot of ${name}`, dot.backgroundColor, ground(one), 3);
  }
  return [found, counts];
}"""


@needs_chromium
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
async def test_everything_can_be_told_from_its_ground(web_root: Path, *, dark: bool) -> None:
    """3:1 for borders and for the dots of presence and of the state, 4.5:1 for text, in every state of the call."""
    async with joined(web_root, dark=dark) as (there, tab):
        problems: list[str] = []
        checked: dict[str, int] = {}

        async def look() -> None:
            found, counts = await tab.evaluate(_CONTRAST)
            problems.extend(found)
            checked.update({least: checked.get(least, 0) + number for least, number in counts.items()})

        await say(tab, "waiting")
        await look()
        await bring(tab)
        await bring(tab, "ben", name="Ben", isAgent=False)
        await tab.evaluate("() => { window.room.remoteParticipants.get('ben').isSpeaking = true }")
        for who in ("agent-AJ_1", "ben"):
            await tab.evaluate("who => window.room.say(who, 'Good morning.')", who)
        await tab.wait_for_selector("#captions li[data-speaker=other]")
        await tab.click("#mute")
        await look()
        await tab.evaluate("() => window.room.tell('Reconnecting')")
        await look()
        await tab.evaluate("() => window.room.tell('Reconnected')")
        await tab.evaluate("() => window.room.take('agent-AJ_1')")
        await tab.wait_for_selector("#status[data-state=replacing]")
        await say(tab, "unsent")
        there.items = [said("assistant", "This was cut", interrupted=True)]
        await tab.evaluate("() => window.room.tell('Reconnected')")
        await tab.wait_for_selector("#captions li[data-state=cut]")
        await look()
        await tab.click("#leave")
        await tab.wait_for_selector("#captions li[data-state=unsent]")
        await look()
    assert problems == []
    assert checked["3"] > 20
    assert checked["4.5"] > 20


@needs_chromium
async def test_the_newest_line_stays_in_sight(web_root: Path) -> None:
    """Whatever becomes of the screen; also when the lines wrap anew and take more room."""
    async with joined(web_root) as (_, tab):
        for number in range(12):
            await say(tab, f"{number} {'and so on ' * 12}")
        for width, height in (PHONE, NARROW, DESKTOP, (PHONE[0], 500)):
            await tab.set_viewport_size({"width": width, "height": height})
            await tab.wait_for_function(
                """() => {
                    const last = document.querySelector("#captions li:last-child").getBoundingClientRect();
                    return last.bottom <= document.querySelector("#scroller").getBoundingClientRect().bottom;
                }"""
            )


@needs_chromium
async def test_a_low_screen_scrolls(web_root: Path) -> None:
    """At 400 % of a desktop's size what is said still has room, and nothing covers it."""
    async with joined(web_root, size=(320, 256)) as (_, tab):
        box = await tab.locator("#scroller").bounding_box()
        assert box is not None
        assert box["height"] >= 120
        assert await tab.evaluate("() => document.documentElement.scrollWidth") <= 320


@needs_chromium
async def test_a_phone_shows_all_that_can_be_done(web_root: Path) -> None:
    """Field and buttons are on the screen, without scrolling."""
    async with joined(web_root, size=PHONE) as (_, tab):
        for one in ("#text", "#send", "#mute", "#leave"):
            box = await tab.locator(one).bounding_box()
            assert box is not None
            assert box["y"] + box["height"] <= PHONE[1]
