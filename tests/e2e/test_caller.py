"""The caller that other tests measure with tells the truth: on a real LiveKit server, about others like itself."""

import asyncio
import signal
import time
from itertools import pairwise

import pytest
from livekit import api

from tests.support.caller import CAPTION_TOPIC, Caller
from tests.support.distant import DistantCaller
from tests.support.livekit_server import LiveKitServer
from tests.support.netns import SecondHost
from tests.support.witness import AUDIBLE, State

FINAL = "lk.transcription_final"


async def listens(caller: Caller | DistantCaller, identity: str) -> None:
    """Wait until a caller gets somebody's track."""
    await caller.wait(lambda: any(sound.identity == identity for sound in caller.sounds), f"the track of {identity}")


async def test_it_hears_what_is_said(livekit_server: LiveKitServer, room: str) -> None:
    """Both ways, at once, word for word; speech takes its real time and arrives within a second."""
    async with (
        Caller(livekit_server, room=room, identity="alice") as alice,
        Caller(livekit_server, room=room, identity="agent", kind="agent") as agent,
    ):
        await asyncio.gather(listens(alice, "agent"), listens(agent, "alice"))
        asked, _ = await asyncio.gather(alice.say("Wo ist die Lieferung für Zoë?"), agent.say("One moment."))
        question = await agent.wait_heard("Zoë")
        answer = await alice.wait_heard("moment")

    assert question.text == "Wo ist die Lieferung für Zoë?"
    assert alice.heard_texts == {"agent": [answer.text]}
    assert asked.ended - asked.started == pytest.approx(1.9, abs=0.5)
    assert 0 < question.updated - asked.ended < 1


async def test_silence_is_not_audible(livekit_server: LiveKitServer, room: str) -> None:
    """An open microphone gives frames and no sound; speech is sound from its first frame, of its speaker alone."""
    async with (
        Caller(livekit_server, room=room, identity="alice") as alice,
        Caller(livekit_server, room=room, identity="mute") as _,
        Caller(livekit_server, room=room, identity="agent", kind="agent") as agent,
    ):
        await alice.wait(lambda: len(alice.sounds) > 200, "two hundred frames")
        await asyncio.gather(listens(alice, "agent"), listens(alice, "mute"))
        assert alice.first_audible_after(0) is None

        said = await agent.say("Hello")
        first = await alice.wait_audible(said.started, identity="agent")
        await alice.wait_heard("Hello")

    assert 0 < first - said.started < 1
    assert alice.first_audible_after(0) == first
    assert alice.first_audible_after(0, identity="mute") is None
    assert alice.first_audible_after(time.monotonic()) is None
    loud = [sound.rms for sound in alice.sounds if sound.is_audible]
    assert max(loud) > 10 * AUDIBLE
    assert max(sound.rms for sound in alice.sounds if sound.at < said.started) < AUDIBLE / 10


async def test_a_ghost_is_seen_and_not_heard(livekit_server: LiveKitServer, room: str) -> None:
    """An agent killed as it speaks stays in the room, says no more, and its utterance never counts as heard."""
    async with Caller(livekit_server, room=room, identity="alice") as alice:
        ghost = DistantCaller(livekit_server, room=room, identity="agent-1", kind="agent")
        async with ghost:
            await listens(alice, "agent-1")
            talking = asyncio.create_task(ghost.say("I was about to say something long."))
            await alice.wait(lambda: any("about" in one.text for one in alice.utterances), "its first words")
            ghost.process.send_signal(signal.SIGKILL)
            killed = time.monotonic()
            with pytest.raises(RuntimeError, match="its process has ended"):
                await talking
        async with Caller(livekit_server, room=room, identity="agent-2", kind="agent") as successor:
            await alice.wait_agent(other_than=["agent-1"])
            await listens(alice, "agent-2")
            await successor.say("Where were we?")
            await alice.wait_heard("Where were we?")
            await alice.wait(lambda: alice.utterances[0].state is State.BROKEN, "the ghost's utterance to break off")

            assert {agent.identity for agent in alice.agents} == {"agent-1", "agent-2"}
        assert alice.heard_texts == {"agent-2": ["Where were we?"]}
        assert alice.first_audible_after(killed + 1, identity="agent-1") is None
        assert any(sound.at > killed + 1 for sound in alice.sounds if sound.identity == "agent-1")
        assert alice.first_audible_after(killed, identity="agent-2") is not None

        await livekit_server.remove_participant(room, "agent-1")
        gone = await alice.wait_left("agent-1")
    assert gone.is_agent


async def test_what_breaks_off_was_not_heard(livekit_server: LiveKitServer, room: str) -> None:
    """An interrupted utterance is there as far as it was understood, and broken."""
    async with (
        Caller(livekit_server, room=room, identity="alice") as alice,
        Caller(livekit_server, room=room, identity="agent", kind="agent") as agent,
    ):
        await listens(alice, "agent")
        talking = asyncio.create_task(agent.say("a very long story, told at length and in full detail"))
        await alice.wait(lambda: any("long" in one.text for one in alice.utterances), "the first words")
        agent.hush()
        said = await talking
        await alice.wait(lambda: alice.utterances[0].state is State.BROKEN, "the utterance to break off")
        await agent.say("Well.")
        await alice.wait_heard("Well.")

    assert said.ended - said.started < 2.5
    assert "a very long story".startswith(alice.utterances[0].text[:10])
    assert alice.heard_texts == {"agent": ["Well."]}


async def test_captions_grow_and_end(livekit_server: LiveKitServer, room: str) -> None:
    """Each stream is one caption: open as it grows, final when its sender says so, broken when the sender goes."""
    async with (
        Caller(livekit_server, room=room, identity="alice") as alice,
        Caller(livekit_server, room=room, identity="agent", kind="agent") as agent,
    ):
        await alice.wait_agent()
        send = agent.rtc_room.local_participant.stream_text
        writer = await send(topic=CAPTION_TOPIC, attributes={"lk.segment_id": "s1", FINAL: "false"})
        await writer.write("On its ")
        first = await alice.wait_caption(lambda caption: caption.text == "On its ")
        await writer.write("way.")
        await writer.aclose(attributes={FINAL: "true"})
        final = await alice.wait_caption("On its way.", identity="agent")
        cut_off = await send(topic=CAPTION_TOPIC, attributes={"lk.segment_id": "s2"})
        await cut_off.write("And then")
        await alice.wait_caption(lambda caption: caption.text == "And then")
        await livekit_server.remove_participant(room, "agent")
        broken = await alice.wait_caption(lambda caption: caption.state is State.BROKEN)

    assert (first.state, first.is_final) == (State.OPEN, False)
    assert (final.segment_id, final.state, final.is_final) == ("s1", State.COMPLETE, True)
    assert first.began == final.began < final.updated
    assert (broken.text, broken.is_final) == ("And then", False)
    assert broken.error


async def test_chat_and_attributes_arrive(livekit_server: LiveKitServer, room: str) -> None:
    """Texts, the attributes of a token, and their changes."""
    async with (
        Caller(livekit_server, room=room, identity="alice", name="Alice", attributes={"tier": "gold"}) as alice,
        Caller(livekit_server, room=room, identity="agent", kind="agent") as agent,
    ):
        await alice.chat("Where is my order?")
        chat = await agent.wait_chat("order")
        assert (chat.identity, chat.text) == ("alice", "Where is my order?")
        assert agent.present["alice"].attributes == {"tier": "gold"}
        assert agent.present["alice"].name == "Alice"

        await alice.set_attributes({"language": "de"})
        await agent.wait(lambda: agent.attribute_changes, "the change")

        assert agent.attributes == {"alice": {"tier": "gold", "language": "de"}, "agent": {}}
        assert agent.present["alice"].attributes == {"tier": "gold", "language": "de"}
        assert agent.attribute_changes[0].changed == {"language": "de"}


async def test_the_record_outlasts_a_hang_up(livekit_server: LiveKitServer, room: str) -> None:
    """Others see two stays; the one who left knows what was before, and hears what is after."""
    async with (
        Caller(livekit_server, room=room, identity="agent", kind="agent") as agent,
        Caller(livekit_server, room=room, identity="alice") as alice,
    ):
        await listens(alice, "agent")
        await agent.say("Before.")
        await alice.wait_heard("Before.")
        await alice.leave()
        left = await agent.wait_left("alice")
        await agent.say("Meanwhile.")
        rejoining = time.monotonic()
        await alice.rejoin()
        await alice.wait(lambda: any(sound.at > rejoining for sound in alice.sounds), "the agent's track")
        await agent.say("After.")
        await alice.wait_heard("After.")
        stays = [stay.left is None for stay in agent.presences]

    assert left.left is not None
    assert stays == [False, True]
    assert [one.text for one in alice.heard] == ["Before.", "After."]
    assert [change.state for change in alice.connection] == ["connected", "left", "connected", "left"]


@pytest.mark.chaos
async def test_a_cut_cable_loses_sound_and_no_text(
    reachable_livekit_server: LiveKitServer, second_host: SecondHost, room: str
) -> None:
    """For three seconds nothing passes either way; then the call goes on, and what was written meanwhile arrives."""
    server = reachable_livekit_server
    async with (
        Caller(server, room=room, identity="agent", kind="agent") as agent,
        DistantCaller(server, room=room, identity="alice", prefix=second_host.prefix) as alice,
    ):
        await asyncio.gather(listens(alice, "agent"), listens(agent, "alice"))
        await alice.say("Before.")
        await agent.wait_heard("Before.")

        second_host.cut()
        cut = time.monotonic()
        writing = asyncio.create_task(alice.chat("written in the dark"))
        await asyncio.gather(alice.say("said in the dark"), agent.say("answered in the dark"))
        await asyncio.sleep(cut + 3 - time.monotonic())
        assert agent.chats == []
        second_host.mend()
        mended = time.monotonic()
        await writing
        await agent.wait_chat("written in the dark")
        await asyncio.gather(alice.say("After."), agent.say("Here again."))
        await asyncio.gather(agent.wait_heard("After."), alice.wait_heard("Here again."))

    assert agent.heard_texts == {"alice": ["Before.", "After."]}
    assert alice.heard_texts == {"agent": ["Here again."]}
    for one in (alice, agent):
        assert one.first_audible_after(mended) is not None
        audible_inside = [sound for sound in one.sounds if sound.is_audible and cut + 1 < sound.at < mended]
        assert audible_inside == []


async def test_a_frame_comes_every_ten_milliseconds(livekit_server: LiveKitServer, room: str) -> None:
    """The scale of "first audible frame": frames are that far apart on average, whatever the machine does meanwhile."""
    async with (
        Caller(livekit_server, room=room, identity="alice") as alice,
        Caller(livekit_server, room=room, identity="agent", kind="agent"),
    ):
        await alice.wait(lambda: len(alice.sounds) > 200, "two hundred frames")
    times = [sound.at for sound in alice.sounds[50:]]
    steps = [later - earlier for earlier, later in pairwise(times)]
    assert sum(steps) / len(steps) == pytest.approx(0.01, rel=0.5)


async def test_the_server_tells_who_is_there(livekit_server: LiveKitServer, room: str) -> None:
    """The API, as the server object offers it: participants, a dispatch that waits for a worker, an end of the room."""
    assert await livekit_server.participants(room) == []
    async with Caller(livekit_server, room=room, identity="alice", metadata="m") as alice:
        there = await livekit_server.participants(room)
        assert [(one.identity, one.metadata) for one in there] == [("alice", "m")]
        dispatch = await livekit_server.create_dispatch("nobody", room, {"conversation_id": "c"})
        async with livekit_server.api() as client:
            listed = await client.agent_dispatch.list_dispatch(room_name=room)
        # The server adds one without a name, for workers that take every room.
        assert {one.id: one.metadata for one in listed if one.agent_name} == {dispatch.id: '{"conversation_id": "c"}'}

        await livekit_server.delete_room(room)
        await alice.wait(lambda: alice.connection[-1].state == "disconnected", "to be put out")


async def test_a_token_can_bring_an_agent(livekit_server: LiveKitServer, room: str) -> None:
    """The dispatch of the one who makes the room is there from the start."""
    wanted = api.RoomAgentDispatch(agent_name="nobody", metadata="x")
    async with Caller(livekit_server, room=room, dispatch=[wanted]), livekit_server.api() as client:
        listed = await client.agent_dispatch.list_dispatch(room_name=room)
    assert [(one.agent_name, one.metadata) for one in listed] == [("nobody", "x")]


@pytest.mark.chaos
async def test_a_killed_server_comes_back_at_its_address(own_livekit_server: LiveKitServer, room: str) -> None:
    """Killed and started again it is reached as before; a caller that was inside returns by itself or is told."""
    url = own_livekit_server.url
    async with Caller(own_livekit_server, room=room) as caller:
        own_livekit_server.kill()
        own_livekit_server.start()
        assert own_livekit_server.url == url
        await caller.wait(lambda: caller.connection[-1].state in {"reconnected", "disconnected"}, "news", 60)
    async with Caller(own_livekit_server, room=room, identity="bob"):
        # the first caller may have come back just before it left, and be listed for a moment yet
        assert "bob" in {one.identity for one in await own_livekit_server.participants(room)}
