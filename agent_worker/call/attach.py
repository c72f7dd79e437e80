"""Putting a session, its agent and a conversation together."""

import logging
from dataclasses import dataclass
from typing import Any, overload

from livekit import rtc
from livekit.agents import Agent, AgentSession, JobContext, get_job_context
from pydantic import BaseModel

from agent_worker.call.opening import open_conversation
from agent_worker.call.starting import AgentFactories, Starting
from agent_worker.session.protocol import Conversation
from agent_worker.session.recorder import Recorder
from agent_worker.session.restoration import Restored, restore
from agent_worker.settings import CallSettings
from agent_worker.tenure.conversation import CallConversation
from agent_worker.tenure.role import AGENT_ROLE
from agent_worker.tenure.simulated import SimulatedConversation
from conversation_actors import InvalidInputError
from conversation_actors.versions import tell_untested

logger = logging.getLogger(__name__)

_ATTACHED = "agent_worker.attached"
"""Key in a job process's userdata: the session that is bound to the job's conversation."""


@dataclass(frozen=True, slots=True)
class Attached:
    """A session that is bound to a conversation."""

    restored: Restored
    recorder: Recorder


@overload
async def attach(
    session: AgentSession[Any],
    context: JobContext,
    /,
    *,
    agents: AgentFactories | None = None,
    userdata: type | None = None,
    role: str = AGENT_ROLE,
    call: CallSettings | None = None,
    outcome: type[BaseModel] | None = None,
) -> CallConversation: ...


@overload
async def attach(
    session: AgentSession[Any],
    agent: Agent,
    conversation: Conversation,
    *,
    room: rtc.Room | None = None,
    agents: AgentFactories | None = None,
    userdata: type | None = None,
) -> Attached: ...


async def attach(
    session: AgentSession[Any],
    agent: JobContext | Agent,
    conversation: Conversation | None = None,
    *,
    room: rtc.Room | None = None,
    agents: AgentFactories | None = None,
    userdata: type | None = None,
    role: str = AGENT_ROLE,
    call: CallSettings | None = None,
    outcome: type[BaseModel] | None = None,
) -> CallConversation | Attached:
    """Give a session what the job's conversation holds, and record everything from now on. Before ``session.start``.

        await attach(session, ctx)
        await session.start(agent=Assistant(), room=ctx.room)

    opens the conversation, as `open_conversation` does, and returns it. The agent is taken when the session starts:
    the one that had the word, if an agent before this one died. It is made by ``agents[id]`` if there is one,
    else by its class, else it is the one that the session is started with. ``session.userdata`` comes back as
    `userdata`, or as what the session holds. The people in the room are followed, greeted, and spoken to again after a
    crash; the session ends when another agent takes over. In a planned handover ``session.start`` returns when the
    call is this job's. What the application says of a call by ``conversation.set_outcome(…)`` has to fit `outcome`.

    The long form, ``attach(session, agent, conversation, room=ctx.room)``, restores at once, and tells what.
    With a conversation that is not from `open_conversation` nobody is followed.

    In LiveKit's console and its fake jobs (``ctx.is_fake_job()``) the session starts as if this was not called.

    Raises `RuntimeError` if the session has started, and `InvalidInputError` for a second session in one job.

    Example:
        conversation = await attach(session, ctx, agents={"specialist": Specialist})
        await session.start(agent=Assistant(), room=ctx.room)
        async with conversation.once("greet") as todo:
            if todo:
                print("this is done once, whichever job gets to it")
    """
    _require_not_started(session)
    tell_untested("livekit-agents")
    if isinstance(agent, JobContext):
        if agent.is_fake_job():
            return await open_conversation(agent, role=role, call=call, outcome=outcome)
        _require_first(session, agent)
        opened = await open_conversation(agent, role=role, call=call, outcome=outcome)
        agent.proc.userdata[_ATTACHED] = session
        starting = Starting(session, opened, context=agent, room=agent.room, agents=agents, userdata=userdata)
        starting.watch()
        return opened
    if isinstance(conversation, SimulatedConversation):
        return Attached(Restored.nothing(), Recorder(session, conversation))
    if isinstance(conversation, CallConversation):
        context = get_job_context(required=False)
        _require_first(session, context)
        if context is not None:
            context.proc.userdata[_ATTACHED] = session
        starting = Starting(session, conversation, context=context, room=room, agents=agents, userdata=userdata)
        starting.watch(agent)
        # else the other agent is still at it: what it leaves is restored when it has gone
        is_ready = not conversation.is_waiting_for_handover
        restored = (await starting.prepare(agent)).restored if is_ready else Restored.nothing()
        return Attached(restored, starting.recorder)
    return await _attach_plainly(session, agent, conversation)


async def _attach_plainly(session: AgentSession[Any], agent: Agent, conversation: Conversation | None) -> Attached:
    """Restore and record, with nothing of a call around it."""
    if conversation is None:
        message = "conversation: attach(session, ctx), or attach(session, agent, conversation)"
        raise InvalidInputError(message, field="conversation")
    restored = await restore(session, agent, conversation)
    recorder = Recorder(session, conversation).start()
    recorder.record(restored.made_up)
    return Attached(restored, recorder)


def _require_not_started(session: AgentSession[Any]) -> None:
    try:
        session.current_agent  # noqa: B018  # the public way to ask: it raises while the session is not running
    except RuntimeError:
        return
    message = "attach a session before session.start(): a running one has a history of its own"
    raise RuntimeError(message)


def _require_first(session: AgentSession[Any], context: JobContext | None) -> None:
    """Raise if the job, or the session, is bound already: two sessions would be two agents of one conversation."""
    is_bound = isinstance(getattr(session.start, "__self__", None), Starting)
    if is_bound or (context is not None and _ATTACHED in context.proc.userdata):
        message = "session: a job has one attached session, and this is the second attach() in it"
        raise InvalidInputError(message, field="session")
