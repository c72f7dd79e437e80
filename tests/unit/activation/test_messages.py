"""What a client and an owner say to each other, on its way between processes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conversation_actors.errors import ConflictError, IncompatibleVersionError
from conversation_actors.protocol import PROTOCOL, Done, Echo, Execute, Executed, Request, Seen
from conversation_actors.state import Guard, Lease, Participant
from tests.support.strategies import (
    appends,
    ending_commands,
    lease_commands,
    other_commands,
    participant_commands,
)

commands = st.one_of(appends, participant_commands, lease_commands, other_commands, ending_commands)
guards = st.none() | st.builds(Guard, st.text(max_size=3), st.integers(0, 9), st.text(max_size=3), st.text(max_size=3))
digests = st.none() | st.text(max_size=3)


calls = st.builds(
    Execute,
    st.lists(st.builds(Request, st.text(max_size=5), commands, guards, st.booleans(), digests), max_size=4),
    st.text(max_size=3),
    st.integers(0),
    st.none() | st.builds(Seen, st.text(max_size=3), st.none() | st.integers(0)),
)


@given(calls)
def test_requests_arrive_as_they_were_sent(sent: Execute) -> None:
    """Every command, in order, with its id, its lease and its digest; and where the sender's copy stands."""
    arrived = Execute.unpack(sent.pack())
    assert arrived == sent
    assert [type(request.lease) for request in arrived.requests] == [type(request.lease) for request in sent.requests]


def test_replies_arrive_as_they_were_sent() -> None:
    """Positions, results and refusals, in order, and the entries."""
    results = (Done(1, 2), Done(2, 2, Participant(identity="alice")), Done(3, 2, Lease("agent", "worker", 3, 9.5, "b")))
    sent = Executed((*results, ConflictError("no")), (b"entry", Echo(5, 2, 0.5, 0), Echo(6, 2, 0.5, None, ("a", "b"))))
    arrived = Executed.unpack(sent.pack())
    assert (arrived.replies[:3], arrived.entries) == (results, sent.entries)
    refusal = arrived.replies[3]
    assert (type(refusal), str(refusal)) == (ConflictError, "no")


@pytest.mark.parametrize("kind", [Execute, Executed])
def test_messages_of_another_protocol_are_refused(kind: type[Execute] | type[Executed]) -> None:
    """Before anything of them is read: what follows may mean something else, or not be there any more."""
    with pytest.raises(IncompatibleVersionError, match=f"protocol {PROTOCOL + 1}.*{PROTOCOL}"):
        kind.unpack(bytes((PROTOCOL + 1,)) + b"not to be read")
