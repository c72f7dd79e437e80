"""A realtime provider takes ids of its own kind only: what a conversation holds gets there whole all the same."""

import logging
import re

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st
from livekit.agents import Agent, function_tool, llm
from livekit.agents.llm import ChatItem, ChatMessage, FunctionCall, FunctionCallOutput, RealtimeModel
from livekit.plugins import openai

from agent_worker.offline import OfflineServer
from agent_worker.offline.realtime_behaviour import RealtimeBehaviour
from agent_worker.offline.script import ChatRequest, Reply, RequestedCall
from agent_worker.session import realtime
from agent_worker.session.context import is_kept_apart
from agent_worker.session.realtime import fitting_id
from tests.support.fakes import until
from tests.support.sessions.answering import Answer, Running, assistant, crash, seed, texts, user
from tests.support.sessions.fakes_call import FakeRoom, World
from tests.support.sessions.fakes_room import FunctionScript
from tests.support.sessions.realtime_calls import Loudspeaker, reconnecting

HISTORY: tuple[ChatItem, ...] = (
    ChatMessage(id="item_0/msg_0", role="assistant", content=["The post office."]),
    user("Where is my parcel?"),
    FunctionCall(id="item_1/fnc_0", call_id="call_1", name="find", arguments='{"what": "parcel"}'),
    FunctionCallOutput(id="item_1/fnc_0/output", call_id="call_1", name="find", output="In Kiel.", is_error=False),
    assistant("It is in Kiel."),
    user("And the letter?"),
)
SAID = ["The post office.", "Where is my parcel?", None, "In Kiel.", "It is in Kiel.", "And the letter?"]
ANSWER = "It has come."


class Postman(Agent):
    """Speaks with a realtime model."""

    def __init__(self, server: OfflineServer, http: aiohttp.ClientSession) -> None:
        """`server`: where the model is."""
        model = openai.realtime.RealtimeModel(base_url=server.base_url, api_key="any", http_session=http)
        super().__init__(instructions="You know parcels.", llm=model)

    @function_tool
    async def find(self, what: str) -> str:
        """Find something.

        Args:
            what: It.
        """
        return f"{what} is in Kiel."


def _contents(server: OfflineServer) -> list[str | None]:
    """What the last response was made of, without the instructions."""
    return [one.get("content") for one in server.responses[-1].messages[1:]]


def _answers(_request: ChatRequest) -> Reply:
    return Reply(ANSWER)


def _context(running: Running) -> list[str]:
    """The ids of the agent's context, without LiveKit's own items."""
    return [item.id for item in running.session.current_agent.chat_ctx.items if not is_kept_apart(item)]


async def test_no_item_is_lost_to_an_id_that_the_provider_refuses(
    answer: Answer, world: World, http: aiohttp.ClientSession
) -> None:
    """Items of LiveKit's own pipeline have a slash in their ids, and each behind a refused one would be refused too."""
    alice = await seed(world, *HISTORY)
    async with (
        OfflineServer(FunctionScript(_answers)) as server,
        answer(FakeRoom(alice), "job-2", agent=Postman(server, http), output=Loudspeaker()) as running,
    ):
        await running.is_known(ANSWER)
        assert _contents(server) == SAID


async def test_nothing_is_doubled_or_renamed_on_this_side(
    answer: Answer, world: World, http: aiohttp.ClientSession
) -> None:
    """LiveKit is told of each item by the id that it has here, so that it takes none for a new one."""
    alice = await seed(world, *HISTORY)
    async with (
        OfflineServer(FunctionScript(_answers)) as server,
        answer(FakeRoom(alice), "job-2", agent=Postman(server, http), output=Loudspeaker()) as running,
    ):
        await running.is_known(ANSWER)
        *restored, said = _context(running)
        assert restored == [item.id for item in HISTORY]
        assert said.startswith("item_")
        assert [item.id for item in running.call.items if item.type != "agent_handoff"] == [*restored, said]


async def test_a_call_that_was_interrupted_is_told_to_the_provider(
    answer: Answer, world: World, http: aiohttp.ClientSession
) -> None:
    """The output that is made up for it has an id of its own make, which the provider does not take either."""
    alice = await seed(world, user("Find it."), FunctionCall(call_id="call_1", name="find", arguments="{}"))
    async with (
        OfflineServer(FunctionScript(_answers)) as server,
        answer(FakeRoom(alice), "job-2", agent=Postman(server, http), output=Loudspeaker()),
    ):
        await until(lambda: len(server.responses) == 1)
        assert _contents(server) == ["Find it.", None, "interrupted; outcome unknown"]


async def test_tools_go_on_behind_what_was_restored(answer: Answer, world: World, http: aiohttp.ClientSession) -> None:
    """The output of a new call stands behind its call, and the old items where they were."""
    alice = await seed(world, *HISTORY)

    def decide(request: ChatRequest) -> Reply:
        if request.messages[-1]["role"] == "user":
            return Reply(calls=(RequestedCall("call_2", "find", '{"what": "letter"}'),))
        return Reply(ANSWER)

    async with (
        OfflineServer(FunctionScript(decide)) as server,
        answer(FakeRoom(alice), "job-2", agent=Postman(server, http), output=Loudspeaker()) as running,
    ):
        await running.is_known(ANSWER)
        assert _contents(server) == [*SAID, None, "letter is in Kiel."]


async def test_what_comes_back_twice_is_the_same_to_the_provider(
    answer: Answer, world: World, http: aiohttp.ClientSession
) -> None:
    """The third agent's provider has what the second one's had, and what was said there."""
    alice = await seed(world, *HISTORY)
    async with OfflineServer(FunctionScript(_answers)) as server:
        async with answer(FakeRoom(alice), "job-2", agent=Postman(server, http), output=Loudspeaker()) as running:
            await running.is_known(ANSWER)
            await crash(running)
        async with answer(
            FakeRoom(alice), "job-3", agent=Postman(server, http), output=Loudspeaker(), back_line="I am back."
        ) as running:
            await until(lambda: len(server.responses) == 2)
            assert _contents(server) == [*SAID, ANSWER]
            assert texts(running.call.items).count(ANSWER) == 1


@pytest.mark.parametrize(
    "refused",
    [
        ({"The post office."}, [0]),
        ({"It is in Kiel."}, [4]),
        ({"The post office.", "It is in Kiel."}, [0, 4]),
        # the output of a call that is not there is refused for that
        ({"parcel\\"}, [2, 3]),
    ],
)
async def test_what_a_provider_refuses_is_left_out_and_said_once(
    answer: Answer,
    world: World,
    http: aiohttp.ClientSession,
    caplog: pytest.LogCaptureFixture,
    refused: tuple[set[str], list[int]],
) -> None:
    """It may refuse an item for reasons of its own; the rest goes on in its order, now and in every later update."""
    alice, (words, places) = await seed(world, *HISTORY), refused
    behaviour = RealtimeBehaviour(refused_words=frozenset(words))
    with caplog.at_level(logging.WARNING, logger="agent_worker"):
        async with (
            OfflineServer(FunctionScript(_answers), behaviour=behaviour) as server,
            answer(FakeRoom(alice), "job-2", agent=Postman(server, http), output=Loudspeaker()) as running,
        ):
            await running.is_known(ANSWER)
            agent = running.session.current_agent
            await agent.update_chat_ctx(agent.chat_ctx)
            assert _contents(server) == [said for place, said in enumerate(SAID) if place not in places]
            assert {item.id for item in HISTORY} <= {item.id for item in running.call.items}
    told = [record for record in caplog.records if "refused an item" in record.message]
    assert [vars(record)["item_id"] for record in told] == [HISTORY[place].id for place in places]


async def test_a_provider_that_refuses_much_gets_the_rest_all_the_same(
    answer: Answer,
    world: World,
    http: aiohttp.ClientSession,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What it is asked for again is bounded; the last time counts too, and what is left over then is told."""
    monkeypatch.setattr(realtime, "_MOST_REFUSALS", 1)
    alice = await seed(world, *HISTORY)
    behaviour = RealtimeBehaviour(refused_words=frozenset({"The post office.", "It is in Kiel."}))
    async with (
        OfflineServer(FunctionScript(_answers), behaviour=behaviour) as server,
        answer(FakeRoom(alice), "job-2", agent=Postman(server, http), output=Loudspeaker()) as running,
    ):
        await running.is_known(ANSWER)
        assert _contents(server)[:3] == SAID[1:4]
    assert "refuses more items" in caplog.text


@given(st.text(min_size=1))
def test_an_id_that_the_provider_refuses_is_changed_the_same_way_each_time(own: str) -> None:
    """What the provider takes is not changed; all else becomes something that it takes."""
    there = fitting_id(own, "item")
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,32}", there)
    assert fitting_id(there, "item") == there
    assert (there == own) == bool(re.fullmatch(r"[A-Za-z0-9_-]{1,32}", own))


class Sorter(Postman):
    """Gets the word from the postman, with the same model."""

    def __init__(self, postman: Postman) -> None:
        """`postman`: who has it."""
        Agent.__init__(self, instructions="You sort letters.", llm=postman.llm, chat_ctx=postman.chat_ctx)

    async def on_enter(self) -> None:
        """Begin."""
        self.session.generate_reply()


async def test_the_next_agent_of_a_call_uses_the_same_session(
    answer: Answer, world: World, http: aiohttp.ClientSession
) -> None:
    """LiveKit keeps the provider's session at a handoff: what is in it stays once, and the talk goes on behind it."""
    alice, script = await seed(world, *HISTORY), FunctionScript(_answers)
    async with OfflineServer(script) as server:
        postman = Postman(server, http)
        async with answer(FakeRoom(alice), "job-2", agent=postman, output=Loudspeaker()) as running:
            await running.is_known(ANSWER)
            running.session.update_agent(Sorter(postman))
            await until(lambda: len(server.responses) == 2)
            assert _contents(server) == [*SAID, ANSWER]
            assert server.responses[-1].messages[0]["content"] == "You sort letters."


async def test_a_model_that_an_agent_brings_is_guarded_too(
    answer: Answer, world: World, http: aiohttp.ClientSession
) -> None:
    """Whoever gets the word later, with a model of its own, hands the whole talk to its provider."""
    alice, script = await seed(world, *HISTORY), FunctionScript(_answers)
    async with OfflineServer(script) as server, OfflineServer(script) as other:
        postman = Postman(server, http)
        async with answer(FakeRoom(alice), "job-2", agent=postman, output=Loudspeaker()) as running:
            await running.is_known(ANSWER)
            sorter = Sorter(Postman(other, http))
            await sorter.update_chat_ctx(postman.chat_ctx)
            running.session.update_agent(sorter)
            await until(lambda: len(other.responses) == 1)
            assert _contents(other) == [*SAID, ANSWER]


@pytest.mark.skipif(not hasattr(llm, "RealtimeModelFallbackAdapter"), reason="this LiveKit has no such adapter")
async def test_contexts_go_to_whichever_realtime_provider_is_there(
    answer: Answer, world: World, http: aiohttp.ClientSession
) -> None:
    """LiveKit's adapter hands contexts on to whichever provider is there."""
    alice, script = await seed(world, *HISTORY), FunctionScript(_answers)
    async with OfflineServer(script) as server:
        models: list[RealtimeModel] = [
            openai.realtime.RealtimeModel(base_url=server.base_url, api_key="any", http_session=http)
        ]
        agent = Agent(instructions="You know parcels.", llm=llm.RealtimeModelFallbackAdapter(models))
        async with answer(FakeRoom(alice), "job-2", agent=agent, output=Loudspeaker()) as running:
            await running.is_known(ANSWER)
            assert _contents(server) == SAID


async def test_a_session_that_is_begun_anew_has_it_all_once(
    answer: Answer, world: World, http: aiohttp.ClientSession
) -> None:
    """Each time all is told to the provider again, and back to LiveKit: nothing is new by that, on either side."""
    alice, script = await seed(world, *HISTORY), FunctionScript(_answers)
    async with OfflineServer(script) as server:
        postman = Postman(server, http)
        async with answer(FakeRoom(alice), "job-2", agent=postman, output=Loudspeaker()) as running:
            await running.is_known(ANSWER)
            known = _context(running)
            for _ in range(2):
                async with reconnecting(running):
                    await server.expire()
            await postman.update_chat_ctx(postman.chat_ctx)
            assert _context(running) == known
            running.session.update_agent(Sorter(postman))
            await until(lambda: len(server.responses) == 2)
            assert _contents(server) == [*SAID, ANSWER]
