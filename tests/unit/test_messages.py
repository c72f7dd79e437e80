"""What a client and an owner say to each other, on its way between processes."""

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conversation_actors.activation import Done, Executed, Request, Requests
from conversation_actors.errors import ConflictError
from conversation_actors.state import Lease, Participant
from tests.unit.strategies import (
    appends,
    ending_commands,
    lease_commands,
    other_commands,
    participant_commands,
)

commands = st.one_of(appends, participant_commands, lease_commands, other_commands, ending_commands)
guards = st.none() | st.tuples(st.text(max_size=3), st.integers(0, 9))
PROTOCOLS = range(2, pickle.HIGHEST_PROTOCOL + 1)


@given(st.lists(st.builds(Request, st.text(max_size=5), commands, guards), max_size=4), st.sampled_from(PROTOCOLS))
def test_requests_arrive_as_they_were_sent(requests: list[Request], protocol: int) -> None:
    """Every command, in order, with its id and its lease."""
    arrived = pickle.loads(pickle.dumps(Requests(requests), protocol))
    assert type(arrived) is Requests
    assert arrived == tuple(requests)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_replies_arrive_as_they_were_sent(protocol: int) -> None:
    """Positions, results and refusals, in order, and the entries."""
    results = (Done(1, 2), Done(2, 2, Participant(identity="alice")), Done(3, 2, Lease("agent", "worker", 3, 9.5)))
    sent = Executed((*results, ConflictError("no")), (b"entry", b""))
    arrived = pickle.loads(pickle.dumps(sent, protocol))
    assert (arrived.replies[:3], arrived.entries) == (results, sent.entries)
    refusal = arrived.replies[3]
    assert (type(refusal), str(refusal)) == (ConflictError, "no")
