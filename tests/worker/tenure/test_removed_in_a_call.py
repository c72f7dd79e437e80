"""What an application takes out of a conversation by its id, in a call that goes on: nobody brings it back."""

import pytest
from livekit.agents import Agent

from agent_worker.offline import OfflineServer
from agent_worker.session.had_the_word import ACTIVE_AGENT
from tests.support.fakes import until
from tests.support.sessions.answering import Answer, crash, vanish
from tests.support.sessions.fakes_call import FakeParticipant, FakeRoom, World
from tests.support.sessions.fakes_room import FunctionScript
from tests.worker.session.test_context_edits import CARD
from tests.worker.session.test_quoted_calls import Bank, model


@pytest.mark.parametrize("edits", ["follow", "keep"])
async def test_a_conversation_that_is_gone_is_not_told_it(
    answer: Answer, world: World, monkeypatch: pytest.MonkeyPatch, edits: str
) -> None:
    """The session has it still, and tells all of the talk but that."""
    monkeypatch.setenv("AGENT_CONTEXT_EDITS", edits)
    async with answer(FakeRoom(FakeParticipant("alice")), agent=Agent(instructions="x"), greeting="") as running:
        await running.session.run(user_input="Good morning")
        await running.session.run(user_input=f"My card is {CARD}.")
        await running.is_known(f"My card is {CARD}.")
        await running.call.flush()
        (gone,) = [item for item in running.call.items if CARD in repr(item.to_dict())]
        running.call.remove(gone.id)
        await running.call.flush()
        kept = {item.id for item in running.call.items}
        await vanish(world)
        running.call.note("x", 1)
        await until(lambda: "x" in running.call.attributes)
        assert {item.id for item in running.call.items} == kept
        assert CARD.encode() not in world.store.content


async def test_words_that_quote_a_call_go_with_it(answer: Answer, world: World) -> None:
    """An agent that was told of a call in words has them in its context, which is noted: not any more."""
    alice = FakeParticipant("alice")
    async with OfflineServer(FunctionScript(model)) as server:
        async with answer(FakeRoom(alice), agent=Bank(), on=server, greeting="") as first:
            await first.is_known("Here you are.")
            await first.session.run(user_input="Hello")
            await first.session_is_calm()
            await first.call.flush()
            await crash(first)
        async with answer(FakeRoom(alice), "job-2", agent=Bank(), on=server, greeting="", back_line="") as second:
            await second.session.run(user_input="Hello again")
            await second.session_is_calm()
            await second.call.flush()
            assert CARD in repr(second.call.attributes[ACTIVE_AGENT])
            call = next(item for item in second.call.items if item.type == "function_call")
            second.call.remove(call.id)
            await second.call.flush()
            assert CARD not in repr(second.call.attributes[ACTIVE_AGENT])
            assert CARD.encode() not in world.store.content
            await crash(second)
        async with answer(FakeRoom(alice), "job-3", agent=Bank(), on=server, greeting="", back_line="") as third:
            await third.session.run(user_input="And now?")
            assert CARD not in repr(server.requests[-1])
