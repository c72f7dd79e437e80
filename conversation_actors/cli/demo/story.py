"""The story: who talks, who watches, who is killed when, and what that shows."""

import asyncio
import os
import signal
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from conversation_actors.calls import SessionRecord
from conversation_actors.cli.demo.intruder import Intruder
from conversation_actors.cli.demo.narration import Narration
from conversation_actors.cli.demo.performer import DemoFailedError, Performer, Told
from conversation_actors.cli.demo.recorded import record_of_first_call
from conversation_actors.cli.demo.returning import wipe_and_return
from conversation_actors.cli.demo.script import DemoScript
from conversation_actors.cli.demo.stage import Stage
from conversation_actors.cli.demo.verdict import Evidence, Return, Verdict, Written, judge
from conversation_actors.cli.demo.witness import Witness, says
from conversation_actors.cli.processes import is_running
from conversation_actors.client import ConversationClient, ConversationHandle
from conversation_actors.items import Message

_GONE_SECONDS = 15.0
_CALLER = "caller"
_ACTOR_SHARE, _AGENT_SHARE, _INTRUDER_SHARE = 0.25, 0.6, 0.85
"""Where in the call each thing happens."""


@dataclass
class DemoOutcome:
    """The kills, the verdict and the record of the call: what the demo has to show."""

    verdict: Verdict
    kills: list[dict[str, Any]]
    record: SessionRecord | None = None


@dataclass
class Story:
    """One run of the demo. The steps are methods, in their order."""

    stage: Stage
    narration: Narration
    conversation: str
    transcript: Path
    pause: float
    kills: list[dict[str, Any]] = field(default_factory=list)
    own: list[str] = field(default_factory=list)
    """Ids of what the demo itself appended and was told to be durable."""

    async def tell(self) -> DemoOutcome:
        """Tell the whole story. Raises `DemoFailedError` and `ConversationError`."""
        script = DemoScript.load(self.transcript)
        first, watcher = await self._begin()
        async with ConversationClient(self.stage.settings) as client:
            handle = await client.open(self.conversation)
            witness = Witness(handle)
            witness.start()
            try:
                agents = await self._perform(script, handle, witness, first)
                before = await self._gather(handle, witness, agents, watcher)
                verdict = judge(await self._return(before, client, witness), script)
                return DemoOutcome(verdict, self.kills, await record_of_first_call(client, self.conversation))
            finally:
                witness.stop()

    async def _perform(
        self, script: DemoScript, handle: ConversationHandle, witness: Witness, first: Performer
    ) -> list[Performer]:
        """Do to the call what the story tells. Returns the agents that held the call."""
        await self._kill_actor(script.turns[script.cut(_ACTOR_SHARE)], handle, witness, first)
        second = await self._kill_agent(script.turns[script.cut(_AGENT_SHARE, with_tools=True)], witness, first)
        await self._intrude(script.turns[script.cut(_INTRUDER_SHARE)], handle, witness)
        self.narration.busy("the call goes on to its end")
        await second.until(lambda line: line["event"] == "left", "the end of the call")
        return [first, second]

    async def _begin(self) -> tuple[Performer, Performer]:
        """Start the agent, and the process that watches. They know the conversation's id, but not each other."""
        self.narration.step(
            "2. Process A holds a phone call. Process B, started separately, watches it.",
            "All they share is the conversation's id. A real LiveKit agent answers the caller; what is said goes to "
            "the conversation's one owner (an actor), which writes it to Redis before it says “done”.",
        )
        self.narration.busy("starting the processes A and B")
        watcher = await self.stage.agent("B watching", "--conversation", self.conversation, "--watch")
        return await self._talk("A"), watcher

    async def _talk(self, name: str) -> Performer:
        def hear(line: Told) -> None:
            self.narration.hear(line, who=f"agent {name}")

        options = ("--conversation", self.conversation, "--pause", str(self.pause), "--caller", _CALLER)
        return await self.stage.agent(f"agent {name}", *options, *self.stage.talking, on_line=hear)

    async def _kill_actor(self, turn: str, handle: ConversationHandle, witness: Witness, agent: Performer) -> None:
        await witness.until(says(turn), "the turn at which the owner is killed")
        before = await handle.info()
        killed = _kill_process(before.pid)
        self.narration.step(
            "3. The conversation's owner is killed (kill -9) while agent A is answering.",
            "Ray starts another process, which reads the conversation back from Redis. A only notices a delay.",
        )
        entry = await witness.until(lambda entry: entry.epoch > before.epoch, "an entry of the next owner")
        answer = await agent.until(_acknowledges(entry.seq), "an acknowledgement by the next owner")
        after = await handle.info()
        self._note(
            what="the owner (actor)",
            how=f"kill -9 {before.pid} during an answer",
            seconds=answer["at"] - killed,
            then=f"process {after.pid} read back {after.replayed} entries from Redis in "
            f"{after.recovery_seconds * 1000:.0f} ms, and A went on",
        )

    async def _kill_agent(self, turn: str, witness: Witness, agent: Performer) -> Performer:
        """Kill the agent between the caller's words, which are durable, and its own answer, which is not said yet."""
        await witness.until(says(turn), "the turn at which the agent is killed")
        killed = time.time()
        agent.kill()
        self.narration.step(
            "4. Agent A is killed (kill -9) in the middle of a sentence. B takes over.",
            f"The caller's last words were: “{turn}” They are safe; the answer was never finished. "
            "A new agent process on B's side opens the same id and gets everything A knew.",
        )
        self.narration.busy("starting agent B")
        second = await self._talk("B")
        started = await second.until(lambda line: line["event"] == "started", "open the conversation")
        answer = await second.until(lambda line: line["event"] == "acknowledged", "an acknowledged turn")
        unanswered = any(line["event"] == "continuing" for line in second.lines)
        self._note(
            what="agent A",
            how=f"kill -9 {agent.pid}, its answer {'unfinished' if unanswered else 'just finished'}",
            seconds=answer["at"] - killed,
            then=f"agent B ({second.pid}) started, got {started['restored']} items, and answered; "
            f"{started['at'] - killed:.1f} s of it to start Python and connect",
        )
        return second

    async def _intrude(self, turn: str, handle: ConversationHandle, witness: Witness) -> None:
        await witness.until(says(turn), "the turn at which a second owner is forced")
        before = await handle.info()
        async with Intruder(self.stage.settings, self.conversation) as intruder:
            taken = time.time()
            await intruder.take_over()
            self.narration.step(
                "5. A second owner is forced: somebody takes the conversation behind the owner's back.",
                "This is what a network split does. Each owner has a number, and Redis takes writes of the highest "
                "one only, so the old owner finds out with its next write, and stops itself.",
            )
            note = Message(role="system", content="A note by the back office, written during the takeover.")
            receipt = await handle.append(note)
            self.own.append(note.id)
            answered = time.time()
            await self._require_gone(before.pid)
            refused = await intruder.write()
        if refused != "FENCED" or receipt.epoch <= intruder.epoch:
            message = f"two owners could write: the intruder's write was {refused}, ours came from {receipt.epoch}"
            raise DemoFailedError(message)
        self._note(
            what="the only ownership",
            how=f"epoch {before.epoch} → {intruder.epoch} by an intruder",
            seconds=answered - taken,
            then=f"owner {before.epoch} (process {before.pid}) was fenced and ended; owner {receipt.epoch} took over, "
            "and the intruder's own write was refused",
        )

    async def _require_gone(self, pid: int) -> None:
        deadline = time.monotonic() + _GONE_SECONDS
        while await asyncio.to_thread(is_running, pid):
            if time.monotonic() > deadline:
                message = f"the fenced owner, process {pid}, still runs after {_GONE_SECONDS:.0f} s"
                raise DemoFailedError(message)
            await asyncio.sleep(0.1)

    async def _gather(
        self, handle: ConversationHandle, witness: Witness, agents: list[Performer], watcher: Performer
    ) -> Evidence:
        """Return what is known when the call is over."""
        snapshot = await handle.snapshot(fresh=True)
        await witness.until(lambda entry: entry.seq >= snapshot.seq, "the last entry")
        final = [item.to_dict() for item in snapshot.items]
        written = witness.written()
        await _until_seen(watcher, {item["id"] for item in final}, written)
        acknowledged = {agent.name: _acknowledged(agent) for agent in agents}
        return Evidence(
            acknowledged={**acknowledged, "the demo": self.own},
            seqs=[entry.seq for entry in witness.entries],
            written=written,
            final=final,
            watched=frozenset(_seen(watcher, written)),
            after_wipe=Return(),
        )

    async def _return(self, before: Evidence, client: ConversationClient, witness: Witness) -> Evidence:
        """Have Redis wiped, and the caller call again. Returns all that is known."""
        returned = await wipe_and_return(
            client, self.conversation, witness, stage=self.stage, narration=self.narration, talk=self._talk
        )
        again = _acknowledged(returned.agent)
        self._note(
            what="all of Redis",
            how="wiped (FLUSHALL) when the owner had left",
            seconds=returned.seconds,
            then=f"agent C ({returned.agent.pid}) got {returned.restored} items from the archive, and knew the caller",
        )
        self.narration.step(
            "7. What is left?",
            "Counted is what each process was told to be safe, against the journal as a witness has read it from its "
            "first entry on, against the conversation as its owner showed it after the first call, and against the "
            "history as it is now.",
        )
        return replace(before, after_wipe=replace(returned.evidence, acknowledged=again))

    def _note(self, *, what: str, how: str, seconds: float, then: str) -> None:
        self.kills.append({"what": what, "how": how, "seconds_until_answer": round(seconds, 3), "then": then})
        self.narration.note(f"next answer after {seconds:.2f} s: {then}", style="yellow")


def _kill_process(pid: int) -> float:
    """Kill a process with SIGKILL. Returns when, in seconds since the epoch."""
    now = time.time()
    os.kill(pid, signal.SIGKILL)
    return now


def _acknowledges(seq: int) -> Any:
    return lambda line: line["event"] == "acknowledged" and line["seq"] >= seq


def _acknowledged(agent: Performer) -> list[str]:
    return [identity for line in agent.lines if line["event"] == "acknowledged" for identity in line["ids"]]


def _seen(watcher: Performer, written: list[Written]) -> set[str]:
    """Return the ids of what the watcher has printed, and of what was there when the watcher came."""
    began = next((line["seq"] for line in watcher.lines if line["event"] == "watching"), 0)
    shown = {line["item"]["id"] for line in watcher.lines if line["event"] == "item"}
    return shown | {one.item_id for one in written if one.seq <= began}


async def _until_seen(watcher: Performer, ids: set[str], written: list[Written]) -> None:
    """Give the watching process a moment. The verdict names what it has not seen by then."""
    try:
        await watcher.until(lambda _line: ids <= _seen(watcher, written), "everything", patience=5.0)
    except DemoFailedError:
        if not is_running(watcher.pid):
            raise
