"""A conversation that opens late, in a successor: it undoes nothing that has happened in the call meanwhile."""

from dataclasses import dataclass
from typing import Any

import pytest
from livekit.agents import Agent, AgentTask, function_tool

from agent_worker.offline import OfflineServer
from agent_worker.offline.script import ChatRequest, Reply, RequestedCall
from agent_worker.session.had_the_word import ACTIVE_AGENT
from agent_worker.session.userdata import USERDATA
from tests.support.fakes import until
from tests.support.sessions.answering import Answer, Running, assistant, seed
from tests.support.sessions.fakes_call import FakeRoom, World
from tests.support.sessions.fakes_room import FunctionScript

HERE = "tests.worker.call.test_late_opening"


class Email(AgentTask[str]):
    """Asks for an address."""

    def __init__(self) -> None:
        """Without words."""
        super().__init__(instructions="email")


class First(Agent):
    """Whom the application starts with; keeps a name."""

    def __init__(self) -> None:
        """Knows nobody."""
        super().__init__(instructions="first")
        self.name = ""
        self.emails: list[str] = []

    def saved_state(self) -> dict[str, Any]:
        """See the documentation."""
        return {"name": self.name}

    def restore_state(self, saved: dict[str, Any]) -> None:
        """See the documentation."""
        self.name = saved["name"]

    @function_tool
    async def book(self) -> str:
        """Book."""
        self.emails.append(await Email())
        return "booked"


class Second(Agent):
    """Who gets the word in the new job, or had it in the old one."""

    def __init__(self) -> None:
        """Without words."""
        super().__init__(instructions="second")


@dataclass
class Caller:
    """What is known of a caller."""

    name: str = "fresh"
    city: str = "nowhere"


def books(request: ChatRequest) -> Reply:
    """Call the tool when asked to."""
    last = request.messages[-1]
    if last["role"] == "user" and last["content"] == "book me":
        return Reply("", (RequestedCall("call_1", "book", "{}"),))
    return Reply(f"answer to {last['role']}")


def had(agent: type[Agent], **more: Any) -> dict[str, Any]:
    """What an earlier job has noted of who had the word."""
    name = agent.__name__
    is_first = agent is First
    told = {"agent_id": name.lower(), "class": f"{HERE}:{name}", "is_first": is_first, "has_entered": True, **more}
    return {ACTIVE_AGENT: told}


async def opens(world: World, running: Running) -> None:
    """The conversation opens, and what comes of that has come: who has the word is noted anew."""
    handle = await world.cluster.handle()
    before = handle.attributes[ACTIVE_AGENT]
    await handle.aclose()
    world.may_open.set()
    await until(lambda: "Hello." in [item.text_content for item in running.session.history.messages()])
    await until(lambda: running.call.noted(ACTIVE_AGENT) != before)
    await running.call.flush()


async def test_who_got_the_word_meanwhile_keeps_it(answer: Answer, world: World) -> None:
    """No other agent is made, and the instance that the application has is the one that the session has."""
    alice = await seed(world, assistant("Hello."), attributes=had(First))
    world.may_open.clear()
    second = Second()
    async with answer(FakeRoom(alice), "job-2", agent=First(), greeting="", back_line="") as running:
        running.session.update_agent(second)
        await until(lambda: running.session.current_agent is second)
        await running.session_is_calm()
        await opens(world, running)
        await running.session_is_calm()
        assert running.session.current_agent is second
        assert running.call.noted(ACTIVE_AGENT)["agent_id"] == "second"
        assert running.call.failures.counts.get("catch_up") is None


async def test_who_has_talked_to_the_caller_goes_on(answer: Answer, world: World) -> None:
    """The first agent has had a turn by now; the one that had the word knows nothing of it."""
    alice = await seed(world, assistant("Hello."), attributes=had(Second))
    world.may_open.clear()
    first = First()
    async with (
        OfflineServer(FunctionScript(books)) as server,
        answer(FakeRoom(alice), "job-2", agent=first, on=server, greeting="", back_line="") as running,
    ):
        await running.session.run(user_input="I am Anna.")
        await opens(world, running)
        await running.session_is_calm()
        assert running.session.current_agent is first
        assert running.call.noted(ACTIVE_AGENT)["agent_id"] == "first"
        assert "Hello." in [item.text_content for item in first.chat_ctx.messages()]


async def test_who_had_it_gets_it_where_nothing_has_happened(answer: Answer, world: World) -> None:
    """The control."""
    alice = await seed(world, assistant("Hello."), attributes=had(Second))
    world.may_open.clear()
    async with answer(FakeRoom(alice), "job-2", agent=First(), greeting="", back_line="") as running:
        world.may_open.set()
        await until(lambda: isinstance(running.session.current_agent, Second))
        await running.session_is_calm()


@pytest.mark.parametrize("is_changed", [False, True])
async def test_the_first_agent_stays_the_one_that_it_is(answer: Answer, world: World, *, is_changed: bool) -> None:
    """It gets its state back, unless it has another one by now; its instructions too."""
    noted = had(First, state={"name": "Anna"}, instructions="changed long ago")
    alice = await seed(world, assistant("Hello."), attributes=noted)
    world.may_open.clear()
    first = First()
    async with answer(FakeRoom(alice), "job-2", agent=first, greeting="", back_line="") as running:
        if is_changed:
            first.name = "Berta"
            await first.update_instructions("changed since")
        await opens(world, running)
        await running.session_is_calm()
        assert running.session.current_agent is first
        assert first.name == ("Berta" if is_changed else "Anna")
        assert first.instructions == ("changed since" if is_changed else "changed long ago")


async def test_userdata_that_was_changed_meanwhile_stays(answer: Answer, world: World) -> None:
    """Field by field: the others come back."""
    fields = {"name": "old", "city": "Bremen"}
    noted = {**had(First), USERDATA: {"fields": fields, "forms": {}}}
    alice = await seed(world, assistant("Hello."), attributes=noted)
    world.may_open.clear()
    caller = Caller()
    async with answer(FakeRoom(alice), "job-2", agent=First(), greeting="", back_line="", waits=False) as running:
        running.session.userdata = caller
        await running.starting
        caller.name = "told since"
        await opens(world, running)
        await until(lambda: caller.city == "Bremen")
        assert caller.name == "told since"
        await until(lambda: running.call.noted(USERDATA)["fields"] == {"name": "told since", "city": "Bremen"})


async def test_a_task_that_runs_goes_on_when_the_conversation_opens_late(
    answer: Answer, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The agent that waits for it goes on behind it, and knows what was said before; it is the one that is noted."""
    monkeypatch.setenv("AGENT_UNRECORDED_TOOLS", "run")
    alice = await seed(world, assistant("Hello."), attributes=had(First))
    world.may_open.clear()
    first = First()
    async with (
        OfflineServer(FunctionScript(books)) as server,
        answer(FakeRoom(alice), "job-2", agent=first, on=server, greeting="", back_line="") as running,
    ):
        running.session.generate_reply(user_input="book me")
        await until(lambda: isinstance(running.session.current_agent, Email))
        task = running.session.current_agent
        assert isinstance(task, Email)
        await opens(world, running)
        assert running.session.current_agent is task
        assert running.call.noted(ACTIVE_AGENT)["agent_id"] == "first"
        task.complete("a@b.example")
        await until(lambda: first.emails == ["a@b.example"])
        await until(lambda: running.session.current_agent is first)
        assert "Hello." in [item.text_content for item in first.chat_ctx.messages()]
