"""Agents that come, follow one another, and die."""

import pytest

from conversation_actors.calls.agents import MOST_AGENTS
from conversation_actors.calls.happenings import AGENT_JOINED, AGENT_REPLACED, Happening
from conversation_actors.calls.names import AGENT, HANDOVER
from tests.support.call_entries import START, Conversation


def replacements(call: Conversation) -> list[Happening]:
    """What is told of agents that follow others."""
    return [one for one in call.told() if one.type == AGENT_REPLACED]


def test_an_agent_that_follows_a_dead_one_is_a_crash_and_a_take_over() -> None:
    """The silence is from the last sign of the old one to the new one's lease."""
    call = Conversation()
    call.take(0, "job-1")
    call.come(1)
    call.say(20, "u1")
    call.take(23.5, "job-2", replacing="job-1")
    call.end(60)
    call.let_go(60)

    record = call.record()
    (told,) = replacements(call)

    assert (record.crashes, record.take_overs, record.silence) == (1, 1, 3.5)
    assert [(one.holder, one.end) for one in record.agents] == [("job-1", "crashed"), ("job-2", "released")]
    assert record.agents[0].left_at == START + 20
    assert told.data == {
        "role": "agent",
        "holder": "job-2",
        "replaced": "job-1",
        "crashed": True,
        "silence": 3.5,
    }


def test_an_agent_that_is_asked_for_the_call_gives_it_over_without_a_crash() -> None:
    """The silence is from its release to the successor's lease."""
    call = Conversation()
    call.take(0, "job-1")
    call.come(1)
    call.wish(20, "job-2")
    call.let_go(22)
    call.take(22.5, "job-2")
    call.end(60)

    record = call.record()

    assert (record.crashes, record.take_overs, record.silence) == (0, 1, 0.5)
    assert [one.end for one in record.agents] == ["handed_over", None]
    assert record.agents[0].left_at == START + 22


def test_a_call_goes_on_while_it_is_given_over_and_nobody_is_in_the_room() -> None:
    """Who comes back finds the same call."""
    call = Conversation()
    call.take(0, "job-1")
    call.come(1)
    call.go(10)
    call.wish(20, "job-2")
    call.let_go(22)
    call.take(23, "job-2")
    call.come(30)
    call.end(60)

    record = call.record()

    assert (record.end_reason, record.take_overs, record.participants[0].visits) == ("completed", 1, 2)


def test_an_agent_of_another_role_gives_its_part_over_too() -> None:
    """It is asked, and says in one change that it goes and that this is done."""
    call, role = Conversation(), "interpreter"
    call.take(0, "job-1")
    call.take(2, "job-2", role=role)
    call.note(20, HANDOVER, {"to": "job-3", "from": "job-2"}, role=role)
    call.let_go(22, role=role)
    call.take(22.5, "job-3", role=role)
    call.end(60)

    assert [(one.holder, one.end) for one in call.record().agents] == [
        ("job-1", None),
        ("job-2", "handed_over"),
        ("job-3", None),
    ]


def test_a_planned_successor_may_take_the_lease_from_a_living_agent() -> None:
    """It has asked, waited, and taken it: nobody died."""
    call = Conversation()
    call.take(0, "job-1")
    call.come(1)
    call.wish(20, "job-2")
    call.take(50, "job-2", replacing="job-1")
    call.end(60)

    record = call.record()

    assert (record.crashes, record.take_overs, record.agents[0].end) == (0, 1, "handed_over")


def test_a_wish_that_was_refused_is_no_excuse_for_a_death() -> None:
    """The agent kept the call, and died later."""
    call = Conversation()
    call.take(0, "job-1")
    call.come(1)
    call.wish(20, "job-2", refused=True)
    call.take(50, "job-2", replacing="job-1")
    call.end(60)

    assert call.record().crashes == 1


def test_a_wish_that_was_taken_back_is_no_excuse_for_a_death() -> None:
    """The successor went away; the one that came later was not asked for."""
    call = Conversation()
    call.take(0, "job-1")
    call.come(1)
    call.wish(20, "job-2")
    call.note(21, "livekit.handover", None)
    call.take(50, "job-2", replacing="job-1")
    call.end(60)

    assert call.record().crashes == 1


def test_a_wish_is_no_sign_of_the_agent() -> None:
    """A successor that asks a dead agent does not make its silence shorter."""
    call = Conversation()
    call.take(0, "job-1")
    call.come(1)
    call.wish(9, "job-2", room="another")
    call.take(11, "job-2", replacing="job-1")
    call.end(60)

    assert call.record().silence == 10


def test_an_agent_that_renews_its_lease_is_told_of_once() -> None:
    """Also if it takes it anew after it has given it back."""
    call = Conversation()
    call.take(0, "job-1")
    call.come(1)
    for at in (20, 40, 90):
        call.renew(at, "job-1")
    call.let_go(100)
    call.take(101, "job-1")
    call.end(120)

    assert [one.type for one in call.told() if one.type.startswith("agent.")] == [AGENT_JOINED]
    assert (call.record().take_overs, call.record().agents[0].end) == (0, None)


def test_an_agent_of_another_role_is_listed_and_counts_for_nothing() -> None:
    """Its end, and its successor, are no take-over of the call."""
    call = Conversation()
    call.take(0, "job-1")
    call.come(1)
    call.take(2, "job-2", role="house.interpreter")
    call.take(80, "job-3", role="house.interpreter", replacing="job-2")
    call.let_go(85, role="house.interpreter")
    call.end(90)

    record = call.record()
    told = [(one.type, one.data["role"], one.data["holder"]) for one in call.told() if one.type.startswith("agent.")]

    assert told == [
        (AGENT_JOINED, "agent", "job-1"),
        (AGENT_JOINED, "house.interpreter", "job-2"),
        (AGENT_REPLACED, "house.interpreter", "job-3"),
    ]
    assert [one.end for one in record.agents] == [None, "crashed", "released"]
    assert (record.crashes, record.take_overs, record.silence) == (0, 0, 0)


def test_an_agent_of_another_role_that_came_first_is_in_the_call() -> None:
    """The roles' jobs begin in any order."""
    call = Conversation()
    call.take(0, "job-2", role="interpreter")
    call.take(1, "job-1")
    call.end(10)

    assert {one.role for one in call.record().agents} == {"agent", "interpreter"}


@pytest.mark.parametrize("role", ["agent", "interpreter"])
def test_of_very_many_agents_the_latest_are_listed_and_all_are_counted(role: str) -> None:
    """The record stays bounded."""
    call = Conversation()
    call.take(0, "job-0")
    for number in range(1, MOST_AGENTS + 10):
        call.take(number, f"{role}-{number}", role=role, replacing=f"{role}-{number - 1}" if number > 1 else "job-0")
    call.end(1000)

    record = call.record()

    assert len(record.agents) == MOST_AGENTS
    assert record.left_out == 10
    assert record.agents[-1].holder == f"{role}-{MOST_AGENTS + 9}"
    assert {one.role for one in record.agents} == {"agent", role}
    assert record.take_overs == (MOST_AGENTS + 9 if role == "agent" else 0)


def test_the_attribute_that_says_who_the_agent_is_makes_nobody_an_agent() -> None:
    """Of the role `agent` the lease decides."""
    call = Conversation()
    call.take(0, "job-1")
    call.note(5, AGENT, {"holder": "somebody"})
    call.end(10)

    assert [one.holder for one in call.record().agents] == ["job-1"]
