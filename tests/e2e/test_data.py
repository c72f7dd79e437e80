"""What a real client sends beside its words, and what it has open: kept over the death of its agent."""

import asyncio
import hashlib
import random
import time
from pathlib import Path

import psutil
import pytest
from livekit import rtc
from pydantic import SecretStr

from agent_worker.settings import LiveKitSettings
from agent_worker.tenure.conversation import HANDOVER
from agent_worker.worker.migration import migrate
from conversation_actors import DataMessage
from tests.e2e.calls import BACK, GREETING, UTTERANCE, hear, times_heard, turn
from tests.e2e.data_agents import READ
from tests.e2e.scene import Scene
from tests.support.processes import kill
from tests.support.servers import wait_until

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(240)]

MEGABYTE = 1 << 20
LARGE = 16 * MEGABYTE


async def kept(scene: Scene, *, at_least: int) -> list[DataMessage]:
    """What was kept of what was sent, as soon as it is so much."""
    found: list[DataMessage] = []

    async def is_there() -> bool:
        found[:] = [item for item in (await scene.stored()).items if isinstance(item, DataMessage)]
        return len(found) >= at_least

    await wait_until(is_there, "data messages to be stored", patience=UTTERANCE)
    return found


async def has_open(scene: Scene, tracks: dict[str, str] | None) -> None:
    """Wait until the conversation says this of the caller's tracks."""

    async def is_told() -> bool:
        person = (await scene.stored()).participants.get("caller")
        return person is not None and person.metadata.get("tracks") == tracks

    await wait_until(is_told, f"the caller's tracks to be {tracks}", patience=UTTERANCE)


def memory(pid: int) -> int:
    """Bytes that a process has for itself."""
    return int(psutil.Process(pid).memory_info().rss)


async def test_files_commands_and_tracks_outlive_the_agent(scene: Scene, tmp_path: Path) -> None:
    """A command, a text, a small and a large file: there before the crash, and after it, with what came since."""
    worker = await scene.worker(AGENT_DATA_TOPICS="commands,files", AGENT_DATA_BYTES=str(16 << 10))
    noise = random.Random(15)  # bytes that do not shrink
    small, large = tmp_path / "bill.pdf", tmp_path / "film.mp4"
    small.write_bytes(noise.randbytes(10_000))
    large.write_bytes(noise.randbytes(LARGE))
    async with scene.caller() as caller:
        await hear(caller, GREETING, after=caller.joined_at)
        here = caller.rtc_room.local_participant
        await has_open(scene, {"microphone": "open"})
        [microphone] = here.track_publications.values()
        assert isinstance(microphone.track, rtc.LocalAudioTrack)
        await here.publish_data('{"do": "hold"}', topic="commands")
        await here.publish_data("nobody keeps this", topic="other")
        await here.send_text("a note", topic="commands")
        await here.send_file(str(small), topic="files")
        await kept(scene, at_least=3)
        holder, pid = await scene.agent()
        before = memory(pid)
        began = time.monotonic()
        await here.send_file(str(large), topic="files")
        await kept(scene, at_least=4)
        scene.record("a file of 16 MB sent and kept by its facts", time.monotonic() - began)
        scene.figures.append(("memory that it took the agent", f"{(memory(pid) - before) / MEGABYTE:.0f} MB"))
        assert memory(pid) - before < LARGE  # it was never held as a whole
        await turn(caller, 0)
        await scene.settled()
        killed = kill(pid)
        await scene.heard_again(caller, killed, holder, "job killed")
        microphone.track.mute()
        await has_open(scene, {"microphone": "muted"})
        await here.publish_data("go on", topic="commands")
        command, note, bill, film, again = await kept(scene, at_least=5)
        microphone.track.unmute()
        await has_open(scene, {"microphone": "open"})
        await turn(caller, 1)
        history = await scene.stored()
    assert [command.text, note.text, again.text] == ['{"do": "hold"}', "a note", "go on"]
    assert command.participant is not None
    assert command.participant["identity"] == "caller"
    assert (bill.name, bill.payload) == ("bill.pdf", small.read_bytes())
    assert (film.name, film.size, film.payload) == ("film.mp4", LARGE, None)
    assert film.sha256 == hashlib.sha256(large.read_bytes()).hexdigest()
    history.assert_nothing_lost(range(2))
    assert times_heard(caller, BACK) == 1
    assert "cannot be restored" not in worker.log()
    await has_open(scene, None)


async def test_what_is_sent_in_a_handover_is_kept_once(scene: Scene, tmp_path: Path) -> None:
    """By the one agent or the other, also a file that begins with the one; the application reads it, as ever."""
    read = tmp_path / "read"
    told = {"AGENT_DATA_TOPICS": "commands,files.*", READ: str(read)}
    await scene.two_workers("--entrypoint", "tests.e2e.data_agents:reading", **told)
    async with scene.caller() as caller:
        await caller.wait_agent(UTTERANCE)
        holder, _ = await scene.agent()
        here = caller.rtc_room.local_participant
        await here.publish_data("0", topic="commands")
        await kept(scene, at_least=1)
        bill = await here.stream_bytes("bill.pdf", topic="files.bill")
        await bill.write(b"one half, ")
        conversation = await scene.client.open(scene.room, create=False)
        going = asyncio.create_task(migrated(scene))

        async def is_asked() -> bool:
            return HANDOVER in conversation.attributes

        await wait_until(is_asked, "the handover to be asked for", patience=30)
        await here.publish_data("1", topic="commands")
        await bill.write(b"the other half")
        await bill.aclose()
        number = 1
        while not going.done():
            number += 1
            await here.publish_data(str(number), topic="commands")
            await asyncio.sleep(0.1)
        assert await going != holder
        await scene.agent(other_than=holder)
        await here.publish_data(str(number + 1), topic="commands")
        items = await kept(scene, at_least=number + 3)
    assert [item.text for item in items if item.kind == "packet"] == [str(one) for one in range(number + 2)]
    [file] = [item for item in items if item.kind == "byte_stream"]
    assert (file.name, file.text, file.interrupted) == ("bill.pdf", "one half, the other half", False)
    assert file.sha256 is not None
    assert read.read_text().splitlines() == [f"caller {file.sha256}"]


async def migrated(scene: Scene) -> str:
    """Have another worker's agent take the call over."""
    livekit = LiveKitSettings(
        url=scene.server.url, api_key=scene.server.api_key, api_secret=SecretStr(scene.server.api_secret)
    )
    return await migrate(scene.room, store=scene.settings, livekit=livekit)
