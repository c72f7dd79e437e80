"""Jobs that follow each other in one conversation, each with a real session; a crash is the end of hearing of one."""

import copy
import json
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from itertools import count
from types import TracebackType
from typing import Any, Self

from livekit.agents import Agent, AgentSession
from livekit.agents.llm import Tool, Toolset

from agent_worker.example.pipeline import text_session
from agent_worker.failures import Failures
from agent_worker.offline import OfflineServer
from agent_worker.offline.script import ChatRequest, Reply, RequestedCall
from agent_worker.session.active_agent import ActiveAgent, Factory, agent_with_the_word
from agent_worker.session.bounds import SessionBounds
from agent_worker.session.context_edits import ContextEdits
from agent_worker.session.recorder import Recorder, Speaker
from agent_worker.session.restoration import Restored, restore
from agent_worker.session.task_groups import follow_groups
from agent_worker.session.tools import HeldTools, hold_tools_back
from agent_worker.session.userdata import Userdata
from agent_worker.settings import LanguageModelSettings
from agent_worker.timing import TIMING, Timing
from conversation_actors.items import item_from_dict
from conversation_actors.values import encode
from tests.support.fakes import turns
from tests.support.sessions.fakes_room import FakeConversation, FunctionScript

Request = Mapping[str, Any]


class NotedConversation(FakeConversation):
    """A conversation that keeps attributes too: as another process would read them."""

    def __init__(self) -> None:
        """Empty."""
        super().__init__()
        self.attributes: dict[str, Any] = {}
        self.noted: list[str] = []
        """Names, in the order in which they were noted."""

    def note(self, name: str, value: Any) -> None:
        """Set an attribute, by the rules of the real one."""
        self.noted.append(name)
        if value is None:
            self.attributes.pop(name, None)
        else:
            self.attributes[name] = json.loads(encode(value, name))

    def left_by_a_crash(self) -> "NotedConversation":
        """What is stored at this moment; what the job does from now on is not."""
        left = NotedConversation()
        left.attributes = copy.deepcopy(self.attributes)
        for item in self.items:
            left.record(item_from_dict(item.to_dict()))
        left.history.clear()
        return left


@dataclass
class Job:
    """One session, put together as `attach` does it."""

    session: AgentSession[Any]
    conversation: NotedConversation
    agent: Agent
    restored: Restored
    recorder: Recorder
    userdata: Userdata
    word: ActiveAgent
    edits: ContextEdits
    failures: Failures

    async def say(self, text: str) -> None:
        """Have the caller say something, and wait for the answer."""
        await self.session.run(user_input=text)
        await turns()


async def at_once() -> None:
    """Wait for nothing."""


class Jobs:
    """Jobs on one model, whose requests are kept."""

    def __init__(self, decide: Callable[[ChatRequest], Reply], *, items: int = 200) -> None:
        """`decide` is the model; `items` is the bound of a session."""
        self._server = OfflineServer(FunctionScript(decide))
        self._items = items
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Start the model."""
        await self._stack.enter_async_context(self._server)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End all sessions."""
        await self._stack.aclose()

    @property
    def requests(self) -> list[Request]:
        """What the model was asked, the newest last."""
        return list(self._server.requests)

    async def start(
        self,
        first: Agent,
        conversation: NotedConversation,
        *,
        agents: Mapping[str, Factory] | None = None,
        userdata: Any = None,
        kind: type | None = None,
        is_restart: bool = False,
        speaker: Speaker | None = None,
        gate: Callable[[], Awaitable[None]] = at_once,
        tools: Iterable[Tool | Toolset] = (),
        timing: Timing = TIMING,
    ) -> Job:
        """Start a session on a conversation; `is_restart`: an earlier job had it."""
        follow_groups()
        settings = LanguageModelSettings(base_url=self._server.base_url, api_key=None)
        session: AgentSession[Any] = await self._stack.enter_async_context(text_session(settings))
        if userdata is not None:
            session.userdata = userdata
        session.tools.extend(tools)
        failures = Failures()
        noted: Mapping[str, Any] = conversation.attributes if is_restart else {}
        word = await agent_with_the_word(first, noted, agents or {}, userdata=userdata)
        await hold_tools_back(word.agent, gate)
        kept = Userdata(session, conversation, failures, kind=kind)
        await kept.restore(noted)
        restored = await restore(session, word.agent, conversation, had=word.had)
        recorder = Recorder(session, conversation, failures, speaker=speaker).start()
        recorder.record(restored.made_up)
        if word.had is not None:
            recorder.expect(word.had.chain)
        edits = ContextEdits(session, conversation, recorder, failures)
        edits.start()
        active = ActiveAgent(
            session,
            conversation,
            failures,
            first=first,
            had=word.had,
            keep=kept.keep,
            taken=edits.taken,
            timing=timing,
        )
        edits.tell(lambda _texts: active.look())
        active.start()
        HeldTools(session, gate, failures).start()
        SessionBounds(session, self._items, failures).start()
        kept.start()
        await session.start(word.agent, record=False)
        return Job(session, conversation, word.agent, restored, recorder, kept, active, edits, failures)

    async def follow(self, job: Job, first: Agent, **named: Any) -> Job:
        """Have another job follow one that has just crashed."""
        return await self.start(first, job.conversation.left_by_a_crash(), is_restart=True, **named)


def said(request: Request) -> list[tuple[str, Any]]:
    """The messages of a request as role and content; calls of tools and their outputs too, by what they are about."""
    told: list[tuple[str, Any]] = []
    for message in request["messages"]:
        calls = [(one["function"]["name"], one["function"]["arguments"]) for one in message.get("tool_calls") or []]
        told.append((message["role"], calls or message.get("content")))
    return told


def tools_of(request: Request) -> list[str]:
    """The names of the tools that the model was given."""
    return sorted(tool["function"]["name"] for tool in request.get("tools") or [])


def last_text(request: ChatRequest) -> str:
    """The caller's last words."""
    spoken = [message for message in request.messages if message["role"] == "user"]
    return str(spoken[-1]["content"]) if spoken else ""


def calls_when_asked(*names: str) -> Callable[[ChatRequest], Reply]:
    """A model that calls the tool that it is asked for by ``use NAME``, and else says how much it was sent."""
    numbers = count()

    def decide(request: ChatRequest) -> Reply:
        if request.messages[-1]["role"] == "tool":
            return Reply("Done.")
        wanted = last_text(request).removeprefix("use ")
        if wanted in names and wanted in request.tools:
            return Reply("", (RequestedCall(f"call_{next(numbers)}", wanted, "{}"),))
        return Reply(f"I was sent {len(request.messages)}.")

    return decide
