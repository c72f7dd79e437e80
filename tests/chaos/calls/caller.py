"""Plays the calls of one conversation, with handles as workers and agents have, and takes down what happened."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Sequence

from conversation_actors import FunctionCall, FunctionCallOutput, Item, Message
from conversation_actors.calls.names import (
    AGENT,
    COMPLETED,
    ERROR,
    HANDOVER,
    LEFT,
    NO_AGENT_COMES,
    NOBODY_THERE,
)
from conversation_actors.calls.record import CLOSED, GIVEN_UP, LOST
from tests.chaos.archive.owners import Owners
from tests.chaos.calls.agents import Agent, Requests
from tests.chaos.calls.expected import Ledger

_LATE = 8.0
"""Seconds after a call's end, and less than the ten in which somebody's leaving still counts."""
_WRITE_SECONDS = 0.03
_ENDS = {"completed": 5, "left": 3, "released": 2, "given_up": 2, "nobody": 2}
"""How calls end after which there may be others, and how often."""
_LAST_ENDS = {**_ENDS, "closed": 2}
LOST_ENDS = ("crashed", "abandoned")
"""How the last call of a conversation is lost."""


class Caller:
    """Plays one conversation. `ledger` has what is to be told of it."""

    def __init__(self, owners: Owners, dice: random.Random, *, calls: int, loses: bool) -> None:
        """Play so many calls, the last of which is lost if it `loses`."""
        self._owners, self._dice, self._calls, self._loses = owners, dice, calls, loses
        self.ledger = Ledger(owners.conversation_id)
        self.figures: Counter[str] = Counter()
        self._requests = Requests(f"{owners.conversation_id}/caller")
        self._numbers: Counter[str] = Counter()
        self._here: list[str] = []
        self._dead: str | None = None
        """The last agent, if it died and nobody has followed it."""

    async def play(self) -> None:
        """Play all calls, one after the other."""
        self._handle = await self._owners.handle()
        for number in range(1, self._calls + 1):
            is_last = number == self._calls
            await self._call(self._end(is_last=is_last), is_first=number == 1)
            await asyncio.sleep(self._dice.uniform(0, 0.1))
        self.ledger.finish()

    def _end(self, *, is_last: bool) -> str:
        if is_last and self._loses:
            return self._dice.choice(LOST_ENDS)
        ends = _LAST_ENDS if is_last else _ENDS
        return self._dice.choices(list(ends), list(ends.values()))[0]

    async def _call(self, end: str, *, is_first: bool) -> None:
        agent = await self._begin(is_first=is_first)
        for _ in range(self._dice.randint(1, 4)):
            agent = await self._turn(agent)
            if self._perhaps(0.1):
                agent = await self._handed_over(agent)
            if self._perhaps(0.1) and len(self._here) == 1:
                who = self._here[0]
                await self._leave(who)
                await self._join(who)
        if self._perhaps(0.3):
            outcome: dict[str, object] = {"resolved": True, "number": self.ledger.call.number}
            await agent.set_outcome(outcome)
            self.ledger.call.outcome = outcome
        if self._perhaps(0.2):
            await agent.note({ERROR: {"type": "APIError", "source": "llm", "recoverable": True, "at": time.time()}})
            self.ledger.call.errors += 1
        self.figures[end] += 1
        await getattr(self, f"_end_{end}")(agent)

    # How calls begin and go on.

    async def _begin(self, *, is_first: bool) -> Agent:
        by = self._dice.choice(["agent", "participant", *(["message"] if is_first else [])])
        if by == "agent":
            agent = await self._agent_comes()
            self.ledger.begin(by)
            self.ledger.agent(agent.holder)
            await agent.arrive()
            await self._join("ada")
        else:
            await self._begin_by_person(by)
            agent = await self._agent_comes()
            self.ledger.agent(agent.holder)
            await agent.arrive()
        if self._perhaps(0.3):
            await self._join("bob")
        return agent

    async def _agent_comes(self) -> Agent:
        """Have the first agent of a call take the lease, also from one that died in the call before."""
        agent = await Agent.comes(self._owners, self._name("job"), replacing=self._dead)
        self._dead = None
        return agent

    async def _begin_by_person(self, by: str) -> None:
        if by == "participant":
            await self._join("ada", begins=True)
            return
        typed = self._says("user")
        await self._requests.until_done(lambda request: self._handle.append(typed, request_id=request))
        self.ledger.begin(by)
        self.ledger.item(typed)
        await self._join("ada")

    async def _turn(self, agent: Agent) -> Agent:
        """Say something, and have it answered, perhaps with the help of a tool, and perhaps by a successor."""
        steps: list[list[Item]] = [[self._says("user")], [self._says("assistant")]]
        if self._perhaps(0.3):
            steps.insert(1, self._tool())
        fatal = self._dice.randrange(len(steps)) if self._perhaps(0.2) else None
        for number, items in enumerate(steps):
            if number == fatal:
                await self._die(agent, items)
                agent, missing = await self._followed(agent)
                items = [  # noqa: PLW2901  # the successor does not know how the dead one called them
                    item.model_copy(update={"id": f"{item.id}.again"}) for item in items if item.id in missing
                ]
            if items:
                await (agent.record(*items) if self._perhaps(0.5) else agent.write(*items))
                self._happened(items)
        return agent

    async def _die(self, agent: Agent, items: Sequence[Item]) -> None:
        """Have an agent die while it writes, and the owner with it now and then, as when a machine is lost."""
        with_owner = self._owners.kill if self._perhaps(0.4) else None
        await agent.die_writing(items, after=self._dice.uniform(0, _WRITE_SECONDS), together_with=with_owner)

    async def _followed(self, dead: Agent) -> tuple[Agent, set[str]]:
        """Have a successor take the call of an agent that has died; return it, and what the dead one did not store.

        Nothing more of the dead one is taken once the successor has the lease.
        """
        self.figures["agents killed"] += 1
        agent = await Agent.comes(self._owners, self._name("job"), replacing=dead.holder)
        view = await self._requests.until_done(lambda _: agent.handle.snapshot(fresh=True))
        stored = {item.id for item in view.items}
        self._happened([item for item in dead.unsure if item.id in stored])
        self.ledger.agent(agent.holder, crashed=True)
        await agent.arrive()
        return agent, {item.id for item in dead.unsure} - stored

    async def _handed_over(self, agent: Agent) -> Agent:
        """Have the agent give the call to a successor that has asked."""
        name = self._name("job")
        wish = {HANDOVER: {"to": name, "from": agent.holder}}
        await self._requests.until_done(lambda request: self._handle.set_attributes(wish, request_id=request))
        await agent.hand_over()
        successor = await Agent.comes(self._owners, name)
        self.ledger.agent(successor.holder)
        await successor.arrive()
        self.figures["handed over"] += 1
        return successor

    # How calls end.

    async def _end_completed(self, agent: Agent) -> None:
        """The agent ends the call, before or after people have left."""
        leaves_first = self._perhaps(0.5)
        if leaves_first:
            await self._all_leave()
        began = time.monotonic()
        await agent.end_call(COMPLETED, self._dice.choice([None, "solved"]))
        self.ledger.end(COMPLETED)
        await agent.release()
        await self._all_leave(since=began)

    async def _end_left(self, agent: Agent) -> None:
        """Everybody has left, and the agent says so."""
        await self._all_leave()
        await agent.end_call(LEFT, None)
        self.ledger.end(LEFT)
        await agent.release()

    async def _end_released(self, agent: Agent) -> None:
        """Everybody has left, and the agent gives its lease back without a word."""
        await self._all_leave()
        await agent.release()
        self.ledger.end(LEFT)

    async def _end_given_up(self, agent: Agent) -> None:
        """The agent dies, and so do its successors: a worker says that no other one comes."""
        self.figures["agents killed"] += 1
        began = time.monotonic()
        await self._say_of_dead(agent, NO_AGENT_COMES)
        self.ledger.end(GIVEN_UP, crashed=True)
        await self._all_leave(since=began)

    async def _end_nobody(self, agent: Agent) -> None:
        """The agent dies when everybody has left: a worker finds nobody."""
        self.figures["agents killed"] += 1
        await self._all_leave()
        await self._say_of_dead(agent, NOBODY_THERE)
        self.ledger.end(LEFT, crashed=True)

    async def _end_closed(self, agent: Agent) -> None:
        """The conversation is closed."""
        await agent.close_conversation("done")
        self.ledger.end(CLOSED)

    async def _end_crashed(self, agent: Agent) -> None:
        """The agent dies, and nobody says anything ever after."""
        self.figures["agents killed"] += 1
        await agent.shorten()
        self.ledger.end(LOST, crashed=True)

    async def _end_abandoned(self, agent: Agent) -> None:
        """The agent goes while people are there, and no other one comes."""
        await agent.release()
        self.ledger.end(LOST)

    async def _say_of_dead(self, agent: Agent, state: str) -> None:
        self._dead = agent.holder
        said = {AGENT: {"holder": None, "of": agent.holder, "at": time.time(), "state": state}}
        await self._requests.until_done(lambda request: self._handle.set_attributes(said, request_id=request))

    # People, and what is said.

    async def _join(self, who: str, *, begins: bool = False) -> None:
        await self._requests.until_done(lambda request: self._handle.join(who, device_id="phone", request_id=request))
        if begins:
            self.ledger.begin("participant")
        self._here.append(who)
        self.ledger.join(who)

    async def _leave(self, who: str, *, since: float | None = None) -> None:
        await self._requests.until_done(lambda request: self._handle.leave(who, request_id=request))
        self._here.remove(who)
        self.ledger.leave(who, is_late=since is not None and time.monotonic() - since > _LATE)

    async def _all_leave(self, *, since: float | None = None) -> None:
        """Have everybody leave; `since`: when the call was about to end, if it has."""
        for who in self._here[:]:
            await self._leave(who, since=since)

    def _says(self, role: str) -> Message:
        name = self._name(role)
        return Message.model_validate({"id": name, "role": role, "content": f"words of {name}"})

    def _tool(self) -> list[Item]:
        name = self._name("tool")
        called = FunctionCall(id=name, call_id=name, name="look_up", arguments="{}")
        return [called, FunctionCallOutput(id=f"{name}.out", call_id=name, name="look_up", output="found")]

    def _perhaps(self, share: float) -> bool:
        return self._dice.random() < share

    def _happened(self, items: Sequence[Item]) -> None:
        for item in items:
            self.ledger.item(item)

    def _name(self, kind: str) -> str:
        self._numbers[kind] += 1
        return f"{self._owners.conversation_id}/{kind}-{self._numbers[kind]}"
