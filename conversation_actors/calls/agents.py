"""The agents of one call: who came, who followed whom, and what that cost."""

from dataclasses import dataclass, field

from conversation_actors.calls.happenings import AGENT_JOINED, AGENT_REPLACED
from conversation_actors.calls.names import AGENT_LEASE
from conversation_actors.calls.record import CRASHED, HANDED_OVER, SessionAgent
from conversation_actors.calls.told import Told

MOST_AGENTS = 64
"""Agents that are listed. Of more, those that came first are not."""


@dataclass(slots=True)
class Agent:
    """One agent's part so far."""

    role: str
    holder: str
    joined_at: float
    left_at: float | None = None
    end: str | None = None


@dataclass(slots=True)
class Agents:
    """Who is, or was, an agent in a call. What is counted is of the role `agent`."""

    listed: list[Agent] = field(default_factory=list)
    left_out: int = 0
    crashes: int = 0
    take_overs: int = 0
    silence: float = 0.0

    def last(self, role: str) -> Agent | None:
        """Return the agent of a role that is here, or was last; None if none was."""
        return next((one for one in reversed(self.listed) if one.role == role), None)

    def take(self, role: str, holder: str, at: float, *, told_at: float, is_planned: bool) -> list[Told]:
        """Note that `holder` has the role from now on.

        `told_at` is when the last entry before came; `is_planned`: the one before was asked to give the call over.
        """
        before = self.last(role)
        if before is not None and before.holder == holder:
            before.left_at = before.end = None
            return []
        if before is None:
            self._add(Agent(role, holder, at))
            return [Told(AGENT_JOINED, {"role": role, "holder": holder})]
        silence = max(0.0, at - (told_at if before.left_at is None else before.left_at))
        if before.left_at is None:
            self._end(before, told_at, HANDED_OVER if is_planned else CRASHED)
        if role == AGENT_LEASE:
            self.take_overs += 1
            self.silence += silence
        self._add(Agent(role, holder, at))
        data = {
            "role": role,
            "holder": holder,
            "replaced": before.holder,
            "crashed": before.end == CRASHED,
            "silence": silence,
        }
        return [Told(AGENT_REPLACED, data)]

    def leave(self, role: str, at: float, end: str, *, holder: str | None = None) -> None:
        """Note that the agent of a role ended, and how; another one than `holder` stays, if that is given."""
        agent = self.last(role)
        if agent is not None and agent.left_at is None and holder in {None, agent.holder}:
            self._end(agent, at, end)

    def record(self) -> tuple[SessionAgent, ...]:
        """Return every agent's part."""
        return tuple(
            SessionAgent(role=one.role, holder=one.holder, joined_at=one.joined_at, left_at=one.left_at, end=one.end)
            for one in self.listed
        )

    def _end(self, agent: Agent, at: float, end: str) -> None:
        agent.left_at, agent.end = at, end
        if end == CRASHED and agent.role == AGENT_LEASE:
            self.crashes += 1

    def _add(self, agent: Agent) -> None:
        self.listed.append(agent)
        if len(self.listed) > MOST_AGENTS:
            last = {one.role: one for one in self.listed}
            oldest = next((one for one in self.listed if one is not last[one.role]), self.listed[0])
            self.listed.remove(oldest)
            self.left_out += 1
