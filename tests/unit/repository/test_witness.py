"""What tests of whole calls are told by their instruments, without a call: records, questions, missing programs."""

import asyncio
from pathlib import Path

import pytest

from tests.support import livekit_server, netns
from tests.support.witness import (
    AUDIBLE,
    AttributesChanged,
    Caption,
    Chat,
    ConnectionChanged,
    Event,
    Presence,
    Sound,
    State,
    Utterance,
    Witness,
    from_line,
    to_line,
)

LOUD, QUIET = AUDIBLE, AUDIBLE - 1
EVENTS: list[Event] = [
    Sound(1.0, "agent", 0.5),
    Utterance(1, "agent", "Grüße", State.BROKEN, 1.0, 2.0),
    Caption("s", "agent", "text\nline", State.COMPLETE, 1.0, 2.0, "seg", is_final=True, attributes={"a": "b"}),
    Chat(1.0, "agent", "text"),
    Presence(1, "agent", is_agent=True, joined=1.0, left=None),
    AttributesChanged(1.0, "agent", {"a": "b"}),
    ConnectionChanged(1.0, "reconnecting"),
]


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_a_record_survives_a_pipe(event: Event) -> None:
    """One line each, and the same event on the other side."""
    line = to_line(event)

    assert "\n" not in line
    assert from_line(line) == event


def test_the_first_audible_frame_is_somebodys() -> None:
    """At or after the moment, loud enough, and of the one who was asked about."""
    witness = Witness()
    for sound in (Sound(1.0, "ghost", LOUD), Sound(2.0, "agent", QUIET), Sound(3.0, "agent", LOUD)):
        witness.note(sound)

    assert witness.first_audible_after(0) == 1.0
    assert witness.first_audible_after(1.0) == 1.0
    assert witness.first_audible_after(1.5) == 3.0
    assert witness.first_audible_after(0, identity="agent") == 3.0
    assert witness.first_audible_after(1.5, identity="ghost") is None


def test_only_what_was_understood_counts_as_heard() -> None:
    """What is open or broken is among the utterances; a later state replaces an earlier one."""
    witness = Witness()
    witness.note(Utterance(1, "agent", "He", State.OPEN, 1.0, 1.0))
    witness.note(Utterance(2, "bob", "Hm", State.BROKEN, 1.1, 1.2))
    assert witness.heard == []
    witness.note(Utterance(1, "agent", "Hello", State.COMPLETE, 1.0, 2.0))

    assert witness.heard_texts == {"agent": ["Hello"]}
    assert [one.text for one in witness.utterances] == ["Hello", "Hm"]


def test_a_ghost_is_an_agent_that_has_not_left() -> None:
    """Who has left is no longer there, and who came again is."""
    witness = Witness()
    witness.note(Presence(1, "agent-1", is_agent=True, joined=1.0))
    witness.note(Presence(2, "alice", is_agent=False, joined=1.0))
    witness.note(Presence(3, "agent-2", is_agent=True, joined=2.0))
    assert [agent.identity for agent in witness.agents] == ["agent-1", "agent-2"]
    witness.note(Presence(1, "agent-1", is_agent=True, joined=1.0, left=3.0))

    assert [agent.identity for agent in witness.agents] == ["agent-2"]
    assert sorted(witness.present) == ["agent-2", "alice"]


async def test_waiting_ends_with_the_event() -> None:
    """Something noted while somebody waits is found, whichever of the questions was asked."""
    witness = Witness()
    waiting = asyncio.gather(
        witness.wait_heard("Hello", identity="agent"),
        witness.wait_caption("Hello"),
        witness.wait_agent(other_than=["agent-0"]),
        witness.wait_audible(2.0),
    )
    await asyncio.sleep(0)
    for event in (
        Presence(0, "agent-0", is_agent=True, joined=1.0),
        Presence(1, "agent", is_agent=True, joined=1.0),
        Sound(3.0, "agent", LOUD),
        Caption("s0", "agent", "Hello", State.COMPLETE, 1.0, 2.0),
        Caption("s1", "agent", "Hello there", State.COMPLETE, 1.0, 2.0, is_final=True),
        Utterance(1, "bob", "Hello", State.COMPLETE, 1.0, 2.0),
        Utterance(2, "agent", "Hello", State.COMPLETE, 1.0, 2.0),
    ):
        witness.note(event)
    utterance, caption, agent, audible = await waiting

    assert (utterance.number, caption.stream_id, agent.identity, audible) == (2, "s1", "agent", 3.0)


async def test_waiting_in_vain_tells_what_was_witnessed() -> None:
    """The message names what was waited for and what came instead."""
    witness = Witness()
    witness.note(Utterance(1, "agent", "Goodbye", State.COMPLETE, 1.0, 2.0))
    witness.note(Sound(1.0, "agent", LOUD))

    with pytest.raises(TimeoutError, match=r"'Hello' from anybody[\s\S]*Goodbye[\s\S]*agent: 1 frames"):
        await witness.wait_heard("Hello", 0.01)


def test_a_missing_server_is_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It names `make livekit-server`; a server elsewhere is enough, unless the test needs one of its own."""
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("LIVEKIT_SERVER_BIN", raising=False)
    monkeypatch.setattr(livekit_server, "_BUILT", tmp_path / "none")
    for missing in (livekit_server.livekit_server_missing(), livekit_server.livekit_server_missing(local=True)):
        assert missing is not None
        assert "make livekit-server" in missing
        assert "\n" not in missing

    for name in ("LIVEKIT_URL", "LIVEKIT_API_KEY", "LIVEKIT_API_SECRET"):
        monkeypatch.setenv(name, "ws://example.invalid")
    assert livekit_server.livekit_server_missing() is None
    assert livekit_server.livekit_server_missing(local=True) is not None


def test_a_server_elsewhere_is_used_and_left_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With all three variables nothing is started, and the same variables go to child processes."""
    variables = {"LIVEKIT_URL": "wss://example.invalid", "LIVEKIT_API_KEY": "key", "LIVEKIT_API_SECRET": "s" * 32}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    with livekit_server.LiveKitServer(tmp_path) as server:
        assert server.process is None
        assert server.env == variables
        assert server.http_url == "https://example.invalid"
    assert list(tmp_path.iterdir()) == []


def test_missing_namespaces_are_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the program or without root it says which."""
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setattr("shutil.which", lambda _: "/sbin/ip")
    assert netns.namespaces_missing() == "no network namespaces: only root can make them"
    monkeypatch.setattr("shutil.which", lambda _: None)
    assert netns.namespaces_missing() == "no network namespaces: run `make setup`, or install iproute2"
