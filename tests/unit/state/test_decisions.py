"""Each command: what it leads to, and when it is refused."""

from contextlib import suppress
from dataclasses import replace
from typing import Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conversation_actors.codec import encode_snapshot
from conversation_actors.errors import (
    ConflictError,
    ConversationClosedError,
    InvalidInputError,
    ItemTooLargeError,
    LeaseHeldError,
    LeaseLostError,
    RefusedError,
)
from conversation_actors.items import StoredItem
from conversation_actors.state import (
    AcquireLease,
    AppendItems,
    AttributesChanged,
    ClearHistory,
    CloseConversation,
    Closing,
    Command,
    ConversationClosed,
    ConversationState,
    Entry,
    Event,
    Guard,
    HistoryCleared,
    ItemsAppended,
    ItemsEvicted,
    ItemsRemoved,
    JoinParticipant,
    Lease,
    LeaseAcquired,
    LeaveParticipant,
    Limits,
    Participant,
    ParticipantForgotten,
    ParticipantJoined,
    ParticipantLeft,
    ReleaseLease,
    Remembered,
    RemoveItems,
    ReopenConversation,
    RetentionChanged,
    SetAttributes,
    SetRetention,
    SetSummary,
    Summary,
    UpdateParticipant,
    decide,
)
from tests.support.strategies import call, items, limits, message, output

Refusal = TypeVar("Refusal", bound=RefusedError)


def conversation(**limits: Any) -> ConversationState:
    """Return an empty conversation."""
    return ConversationState(Limits(**limits))


def do(state: ConversationState, command: Command, *, at: float = 1.0, request_id: str | None = None) -> list[Event]:
    """Decide and apply, as an activation does."""
    events = decide(state, command, now=at)
    for event in events:
        state.apply(Entry(state.seq + 1, 1, at, event, request_id))
        request_id = None
    return list(events)


def refuse(
    kind: type[Refusal],
    state: ConversationState,
    command: Command,
    *,
    at: float = 1.0,
    lease: Guard | None = None,
) -> Refusal:
    """Expect a refusal of exactly this kind, and that it leaves no trace."""
    before = encode_snapshot(state)
    with pytest.raises(kind) as refusal:
        decide(state, command, now=at, lease=lease)
    assert type(refusal.value) is kind
    assert encode_snapshot(state) == before
    return refusal.value


# History


def test_several_items_are_one_entry() -> None:
    """All or none."""
    state = conversation()
    items = (message("m0"), message("m1"))
    assert do(state, AppendItems(items)) == [ItemsAppended(items)]
    assert tuple(state.window) == items


def test_eviction_is_an_event_of_its_own() -> None:
    """Others consume it later; it gives the items in full."""
    state = conversation(items=4)
    do(state, AppendItems(tuple(message(f"m{n}") for n in range(4))))
    assert do(state, AppendItems((message("m4"),))) == [ItemsAppended((message("m4"),)), ItemsEvicted((message("m0"),))]


def test_what_is_there_already_is_not_appended_again() -> None:
    """A repeat without a request id makes no entry, and only what is news goes into one."""
    state = conversation()
    do(state, AppendItems((message("m0"), message("m1"))))
    assert do(state, AppendItems((message("m0"),))) == []
    assert do(state, AppendItems((message("m0"), message("m1", "news")))) == [ItemsAppended((message("m1", "news"),))]
    assert do(state, AppendItems(())) == []


def test_last_of_several_with_one_id_counts() -> None:
    """Also where the last is what the window holds already."""
    state = conversation()
    first, second = message("m", "first"), message("m", "second")
    do(state, AppendItems((first, second)))
    assert list(state.window) == [second]
    assert do(state, AppendItems((first, second))) == []
    assert list(state.window) == [second]


def test_large_item_is_refused_with_size_and_limit() -> None:
    """And nothing of the same append is taken."""
    item = message("big", "x" * 100)
    error = refuse(ItemTooLargeError, conversation(item_bytes=120), AppendItems((message("m0"), item)))
    assert (error.field, error.size, error.limit) == ("items", item.size, 120)
    assert str(error) == f"item big: {item.size} bytes; the limit is 120"


def test_item_of_exactly_the_limit_is_taken() -> None:
    """The limit is what is allowed."""
    item = message("m", "x" * 100)
    assert do(conversation(item_bytes=item.size), AppendItems((item,)))


@pytest.mark.parametrize("other", [message("i", role="system"), call("i", "1"), output("i", "1")])
def test_id_does_not_change_its_kind(other: Any) -> None:
    """Only the content can be replaced; a call must not become a message behind its output."""
    state = conversation()
    assert "item i exists" in str(refuse(ConflictError, state, AppendItems((message("i"), other))))
    do(state, AppendItems((message("i"),)))
    refuse(ConflictError, state, AppendItems((other,)))


def test_call_does_not_move_to_another_call_id() -> None:
    """It would lose its output."""
    state = conversation()
    do(state, AppendItems((call("c", "1"),)))
    refuse(ConflictError, state, AppendItems((call("c", "2"),)))


def test_system_messages_take_half_of_the_items() -> None:
    """So that there is room to talk."""
    state = conversation(items=4)
    do(state, AppendItems((message("s0", role="system"), message("s1", role="developer"))))
    error = refuse(InvalidInputError, state, AppendItems((message("s2", role="system"),)))
    assert (error.field, str(error)) == ("items", "items: 3 system messages; the limit is 2, half of the window")


def test_system_messages_take_half_of_the_bytes() -> None:
    """Counted as stored."""
    rules = message("s0", role="system")
    state = conversation(bytes=2 * rules.size)
    do(state, AppendItems((rules,)))
    error = refuse(InvalidInputError, state, AppendItems((message("s0", "hello!", role="system"),)))
    assert (
        str(error) == f"items: {rules.size + 1} bytes of system messages; the limit is {rules.size}, half of the window"
    )


def test_conversation_goes_on_after_the_limits_were_lowered() -> None:
    """System messages beyond the new limit stay, and only more of them are refused."""
    state = conversation()
    do(state, AppendItems(tuple(message(f"s{n}", role="system") for n in range(5))))
    state.limits = Limits(items=8, bytes=2 * message("s0", role="system").size)
    assert do(state, AppendItems((message("m0"),)))
    refuse(InvalidInputError, state, AppendItems((message("s5", role="system"),)))
    refuse(InvalidInputError, state, AppendItems((message("s0", "longer than before", role="system"),)))


def test_lowered_limits_are_met_at_the_next_append() -> None:
    """What is too much leaves by an event, not silently at recovery."""
    state = conversation()
    do(state, AppendItems(tuple(message(f"m{n}") for n in range(10))))
    state.limits = Limits(items=4)
    assert do(state, AppendItems((message("m10"),)))[1] == ItemsEvicted(tuple(message(f"m{n}") for n in range(7)))


def test_clearing_drops_items_and_summary() -> None:
    """System messages too; participants, attributes and leases stay."""
    state = conversation()
    do(state, AppendItems((message("s", role="system"), message("m"))))
    do(state, SetSummary("so far", 1))
    do(state, SetAttributes({"a": 1}))
    assert do(state, ClearHistory()) == [HistoryCleared()]
    assert (len(state.window), state.window.size, state.window.pinned_count, state.summary) == (0, 0, 0, None)
    assert state.attributes == {"a": 1}
    assert do(state, ClearHistory()) == [HistoryCleared()]  # journal and archive may hold what had left the window
    assert do(conversation(), ClearHistory()) == []


def test_output_of_a_cleared_call_does_not_stay() -> None:
    """The call ran on while the history was cleared."""
    state = conversation()
    do(state, AppendItems((call("c", "1"),)))
    do(state, ClearHistory())
    assert do(state, AppendItems((output("o", "1"),)))[1] == ItemsEvicted((output("o", "1"),))


def test_removed_items_are_told_by_their_ids() -> None:
    """Each once, a call with its outputs, and no content: what was taken out stands nowhere any more.

    Those that are not here too: they may have left the window, and the archive has them.
    """
    state = conversation()
    items = (message("m"), call("c", "1"), message("n"), output("o", "1"), message("s", role="system"))
    do(state, AppendItems(items))
    (removed,) = do(state, RemoveItems(("s", "c", "m", "unknown", "o")))
    assert isinstance(removed, ItemsRemoved)
    assert sorted(removed.identities) == ["c", "m", "o", "s", "unknown"]
    assert [item.id for item in state.window] == ["n"]
    assert (state.window.size, state.window.pinned_count) == (message("n").size, 0)
    assert state.forgotten_seq == state.seq


def test_removing_what_is_not_there_forgets_the_past() -> None:
    """The journal may hold what has left the window, or what was replaced."""
    state = conversation()
    do(state, AppendItems((message("m"),)))
    assert do(state, RemoveItems(("gone",))) == [ItemsRemoved(("gone",))]
    assert do(state, RemoveItems(())) == [ItemsRemoved(())]
    assert ([item.id for item in state.window], state.forgotten_seq) == (["m"], 3)


def test_output_of_a_removed_call_does_not_stay() -> None:
    """The call ran on while it was taken out."""
    state = conversation()
    do(state, AppendItems((call("c", "1"),)))
    do(state, RemoveItems(("c",)))
    assert do(state, AppendItems((output("o", "1"),)))[1] == ItemsEvicted((output("o", "1"),))


# Summary


def test_summary_reaches_to_a_position() -> None:
    """A later one takes its place, one that reaches as far does too."""
    state = conversation()
    do(state, AppendItems((message("m"),)))
    do(state, SetSummary("nothing yet", 0))
    do(state, SetSummary("greeting", 1))
    do(state, SetSummary("better words", 1))
    assert state.summary == Summary("better words", 1)


@pytest.mark.parametrize("through_seq", [-1, 2])
def test_summary_of_what_has_not_happened_is_refused(through_seq: int) -> None:
    """With the range in the text."""
    state = conversation()
    do(state, AppendItems((message("m"),)))
    error = refuse(InvalidInputError, state, SetSummary("?", through_seq))
    assert error.field == "through_seq"
    assert f"{through_seq} is not between 0 and 1" in str(error)


def test_summary_does_not_go_back() -> None:
    """A slow summariser must not undo the work of a fast one."""
    state = conversation()
    do(state, AppendItems((message("m"),)))
    do(state, SetSummary("far", 1))
    assert "reaches to 1 already" in str(refuse(ConflictError, state, SetSummary("near", 0)))


# Participants


def test_first_join() -> None:
    """Everything that is given is known from then on."""
    state = conversation()
    joined = do(state, JoinParticipant(identity="alice", device_id="web", name="Alice", metadata={"vip": True}), at=5.0)
    alice = Participant(
        identity="alice",
        name="Alice",
        metadata={"vip": True},
        connected=True,
        joined_at=5.0,
        last_seen=5.0,
        devices=("web",),
    )
    assert joined == [ParticipantJoined(alice, "web")]
    assert state.participants == {"alice": alice}


def test_second_device_is_no_reconnect() -> None:
    """Nor is the same device saying again that it is here; `joined_at` stays."""
    state = conversation()
    do(state, JoinParticipant(identity="alice", device_id="web", name="Alice"), at=5.0)
    do(state, JoinParticipant(identity="alice", device_id="phone"), at=6.0)
    do(state, JoinParticipant(identity="alice", device_id="phone"), at=7.0)
    alice = state.participants["alice"]
    assert (alice.devices, alice.reconnect_count, alice.joined_at, alice.last_seen) == (("web", "phone"), 0, 5.0, 7.0)
    assert alice.name == "Alice"


def test_gone_is_who_left_with_every_device() -> None:
    """Coming back after that is a reconnect."""
    state = conversation()
    for device in ("web", "phone"):
        do(state, JoinParticipant(identity="alice", device_id=device))
    do(state, LeaveParticipant("alice", "web"), at=3.0)
    assert state.participants["alice"].connected
    do(state, LeaveParticipant("alice", "phone"), at=4.0)
    alice = state.participants["alice"]
    assert (alice.connected, alice.devices, alice.last_seen, alice.reconnect_count) == (False, (), 4.0, 0)
    do(state, JoinParticipant(identity="alice", device_id="web"), at=5.0)
    assert state.participants["alice"].reconnect_count == 1


def test_leaving_without_a_device_leaves_with_all() -> None:
    """The event says which it was."""
    state = conversation()
    for device in ("web", "phone"):
        do(state, JoinParticipant(identity="alice", device_id=device))
    left = do(state, LeaveParticipant("alice"))
    assert left == [ParticipantLeft(state.participants["alice"], None)]
    assert state.participants["alice"].devices == ()


@pytest.mark.parametrize("command", [LeaveParticipant("bob"), LeaveParticipant("alice", "desk")])
def test_leaving_where_one_is_not_changes_nothing(command: Command) -> None:
    """A stranger, or a device that is not connected."""
    state = conversation()
    do(state, JoinParticipant(identity="alice", device_id="web"))
    assert do(state, command) == []
    do(state, LeaveParticipant("alice"))
    assert do(state, LeaveParticipant("alice")) == []


def test_devices_of_one_participant_are_bounded() -> None:
    """A client that invents a device id at each start would grow the state without end."""
    state = conversation()
    for number in range(16):
        do(state, JoinParticipant(identity="alice", device_id=f"d{number}"))
    error = refuse(InvalidInputError, state, JoinParticipant(identity="alice", device_id="d16"))
    assert (error.field, str(error)) == ("device_id", "device_id: 17 devices of one participant; the limit is 16")
    assert do(state, JoinParticipant(identity="alice", device_id="d3"))


def test_who_left_longest_ago_makes_room() -> None:
    """By an event, so that every copy of the state forgets the same."""
    state = conversation(participants=3)
    for at, identity in enumerate(["alice", "bob", "carol"]):
        do(state, JoinParticipant(identity=identity, device_id="web"), at=at)
    do(state, LeaveParticipant("bob"), at=10.0)
    do(state, LeaveParticipant("alice"), at=11.0)
    assert do(state, JoinParticipant(identity="dave", device_id="web"), at=12.0)[1:] == [ParticipantForgotten("bob")]
    assert set(state.participants) == {"alice", "carol", "dave"}


def test_nobody_who_is_connected_is_forgotten() -> None:
    """One more is refused; somebody known comes in without making room."""
    state = conversation(participants=2)
    for identity in ("alice", "bob"):
        do(state, JoinParticipant(identity=identity, device_id="web"))
    error = refuse(InvalidInputError, state, JoinParticipant(identity="carol", device_id="web"))
    assert (error.field, str(error)) == ("identity", "identity: 2 participants are connected; the limit is 2")
    assert len(do(state, JoinParticipant(identity="bob", device_id="phone"))) == 1


def test_as_many_are_forgotten_as_are_too_many() -> None:
    """After the limit was lowered, the next join brings it down."""
    state = conversation()
    for at, identity in enumerate(["alice", "bob", "carol", "dave"]):
        do(state, JoinParticipant(identity=identity, device_id="web"), at=at)
        do(state, LeaveParticipant(identity), at=at)
    state.limits = Limits(participants=2)
    do(state, JoinParticipant(identity="eve", device_id="web"), at=9.0)
    assert list(state.participants) == ["dave", "eve"]


def test_update_changes_what_is_given() -> None:
    """And notes when; the same again makes no entry."""
    state = conversation()
    do(state, JoinParticipant(identity="alice", device_id="web", name="Alice", language="en"))
    update = UpdateParticipant(identity="alice", language="de", context={"order": 7})
    do(state, update, at=8.0)
    alice = state.participants["alice"]
    assert (alice.name, alice.language, alice.context, alice.last_seen) == ("Alice", "de", {"order": 7}, 8.0)
    assert do(state, update) == []


@pytest.mark.parametrize(("old", "new"), [(1, True), (0, False), (1, 1.0), ([1], [True])])
def test_update_tells_what_python_calls_equal_apart(old: Any, new: Any) -> None:
    """1, 1.0 and True are stored differently."""
    state = conversation()
    do(state, JoinParticipant(identity="alice", device_id="web", metadata={"a": old}))
    do(state, UpdateParticipant(identity="alice", metadata={"a": new}))
    assert repr(state.participants["alice"].metadata["a"]) == repr(new)


def test_stranger_is_not_updated() -> None:
    """Who never joined has nothing to change."""
    assert "'alice'" in str(refuse(ConflictError, conversation(), UpdateParticipant(identity="alice", name="A")))


@pytest.mark.parametrize(
    "command",
    [
        JoinParticipant(identity="alice", device_id="web", metadata={"a": "x" * 100}),
        UpdateParticipant(identity="alice", context={"a": "x" * 100}),
        UpdateParticipant(identity="alice", name="x" * 100),
    ],
)
def test_participant_is_bounded(command: Command) -> None:
    """By what is stored of its descriptions, together."""
    state = conversation(participant_bytes=120)
    do(state, JoinParticipant(identity="alice", device_id="web"))
    error = refuse(ItemTooLargeError, state, command)
    assert (error.field, error.limit) == ("participant", 120)
    assert f"{error.size} bytes; the limit is 120" in str(error)


def test_value_that_cannot_be_stored_is_named_by_its_path() -> None:
    """In what describes a participant."""
    command = JoinParticipant(identity="alice", device_id="web", metadata={"a": [0, float("nan")]})
    assert refuse(InvalidInputError, conversation(), command).field == "participant.metadata.a[1]"


# Attributes


def test_attributes_are_merged() -> None:
    """None removes a key; what is the case already makes no entry."""
    state = conversation()
    do(state, SetAttributes({"a": 1, "b": 2}))
    assert do(state, SetAttributes({"a": None, "b": 2, "c": 3, "d": None})) == [AttributesChanged({"a": None, "c": 3})]
    assert state.attributes == {"b": 2, "c": 3}
    assert do(state, SetAttributes({"a": None, "b": 2})) == []
    assert do(state, SetAttributes({})) == []


@pytest.mark.parametrize(("old", "new"), [(1, True), (True, 1), (0, False), (1, 1.0), ({"n": 0}, {"n": False})])
def test_attributes_tell_what_python_calls_equal_apart(old: Any, new: Any) -> None:
    """1, 1.0 and True are stored differently."""
    state = conversation()
    do(state, SetAttributes({"a": old}))
    assert do(state, SetAttributes({"a": new}))
    assert repr(state.attributes["a"]) == repr(new)


def test_compare_and_set() -> None:
    """Refused when any attribute changed after the expected position; other changes do not matter."""
    state = conversation()
    do(state, SetAttributes({"turn": "alice"}))
    seen = state.seq
    do(state, AppendItems((message("m"),)))
    do(state, SetAttributes({"turn": "bob"}, expected_seq=seen))
    refuse(ConflictError, state, SetAttributes({"turn": "carol"}, expected_seq=2))
    error = refuse(ConflictError, state, SetAttributes({"turn": "carol"}, expected_seq=seen))
    assert str(error) == "attributes changed at 3, after the expected seq 1"
    assert state.attributes == {"turn": "bob"}
    do(state, SetAttributes({"turn": "carol"}, expected_seq=state.seq))


def test_compare_and_set_ahead_of_the_conversation_is_refused() -> None:
    """Such a position is from before a loss, or from another conversation."""
    error = refuse(ConflictError, conversation(), SetAttributes({"a": 1}, expected_seq=5))
    assert "ahead of the conversation, which is at 0" in str(error)


def test_attributes_are_bounded_together() -> None:
    """With size and limit; making room is allowed at any size."""
    state = conversation(attributes_bytes=40)
    do(state, SetAttributes({"a": "x" * 20}))
    error = refuse(ItemTooLargeError, state, SetAttributes({"b": "y" * 20}))
    assert (error.field, error.limit) == ("attributes", 40)
    do(state, SetAttributes({"a": None, "b": "y" * 20}))


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"a": {"b": float("inf")}}, "attributes.a.b"),
        ({"a": (1,)}, "attributes.a"),
        ({5: 1}, "attributes.5"),
        ({"a": "\ud800"}, "attributes.a"),
    ],
)
def test_attribute_that_cannot_be_stored_is_named_by_its_path(changes: Any, field: str) -> None:
    """Before anything changes."""
    assert refuse(InvalidInputError, conversation(), SetAttributes(changes)).field == field


# Leases


def test_lease_has_one_holder() -> None:
    """Others are told who it is and until when."""
    state = conversation()
    do(state, AcquireLease("agent", "worker-1", 10.0), at=100.0)
    error = refuse(LeaseHeldError, state, AcquireLease("agent", "worker-2", 10.0), at=109.0)
    assert (error.holder, error.expires_at) == ("worker-1", 110.0)
    assert str(error) == "lease 'agent' is held by 'worker-1' for 1.0 s more"


def test_expired_lease_is_free() -> None:
    """From the moment it expires; the token grows."""
    state = conversation()
    do(state, AcquireLease("agent", "worker-1", 10.0), at=100.0)
    do(state, AppendItems((message("m"),)))
    events = do(state, AcquireLease("agent", "worker-2", 10.0), at=110.0)
    assert events == [LeaseAcquired(Lease("agent", "worker-2", 3, 120.0), renewed=False)]


def test_renewal_keeps_the_token() -> None:
    """Also after the lease has expired, if nobody else had it: what is written in its name goes on."""
    state = conversation()
    do(state, AcquireLease("agent", "worker-1", 10.0), at=100.0)
    renewed = do(state, AcquireLease("agent", "worker-1", 10.0), at=105.0)
    assert renewed == [LeaseAcquired(Lease("agent", "worker-1", 1, 115.0), renewed=True)]
    do(state, AcquireLease("another", "worker-1", 10.0), at=150.0)
    late = do(state, AcquireLease("agent", "worker-1", 10.0), at=200.0)
    assert late == [LeaseAcquired(Lease("agent", "worker-1", 1, 210.0), renewed=True)]


@pytest.mark.parametrize("lost", [AcquireLease("agent", "worker-2", 1.0), ReleaseLease("agent", "worker-1", 1)])
def test_acquisition_after_having_lost_it_has_another_token(lost: Command) -> None:
    """To somebody else who has let it expire since, or by giving it back: what comes now is no renewal."""
    state = conversation()
    do(state, AcquireLease("agent", "worker-1", 10.0), at=100.0)
    do(state, lost, at=110.0)
    again = do(state, AcquireLease("agent", "worker-1", 10.0), at=200.0)
    assert again == [LeaseAcquired(Lease("agent", "worker-1", 3, 210.0), renewed=False)]


def test_holder_that_is_known_to_be_gone_is_replaced() -> None:
    """Before its lease expires, and by another token; a holder of another name is not."""
    state = conversation()
    do(state, AcquireLease("agent", "worker-1", 10.0), at=100.0)
    error = refuse(LeaseHeldError, state, AcquireLease("agent", "worker-2", 10.0, replacing="worker-3"), at=101.0)
    assert error.holder == "worker-1"
    taken = do(state, AcquireLease("agent", "worker-2", 10.0, replacing="worker-1"), at=101.0)
    assert taken == [LeaseAcquired(Lease("agent", "worker-2", 2, 111.0), renewed=False)]
    refuse(LeaseHeldError, state, AcquireLease("agent", "worker-3", 10.0, replacing="worker-1"), at=102.0)


def test_replacing_oneself_is_a_renewal() -> None:
    """And so is replacing somebody who holds nothing, where one holds it oneself."""
    state = conversation()
    do(state, AcquireLease("agent", "worker-1", 10.0), at=100.0)
    for gone in ("worker-1", "worker-2"):
        again = do(state, AcquireLease("agent", "worker-1", 10.0, replacing=gone), at=101.0)
        assert again == [LeaseAcquired(Lease("agent", "worker-1", 1, 111.0), renewed=True)]


GUARDED: list[Command] = [
    AppendItems((message("m"),)),
    JoinParticipant(identity="bob", device_id="web"),
    LeaveParticipant("alice"),
    UpdateParticipant(identity="alice", name="A"),
    SetAttributes({"a": 1}),
    SetSummary("x", 0),
    RemoveItems(("m",)),
    ClearHistory(),
    SetRetention(60.0),
    CloseConversation("done"),
    ReopenConversation(),
]


@pytest.mark.parametrize("command", GUARDED, ids=lambda command: type(command).__name__)
def test_deposed_holder_cannot_write(command: Command) -> None:
    """Whatever the command: in the name of a lease that somebody else has by now, it changes nothing."""
    state = conversation()
    do(state, JoinParticipant(identity="alice", device_id="web"))
    do(state, AcquireLease("agent", "worker-1", 10.0), at=100.0)
    mine = Guard("agent", 2, "worker-1", "")
    decide(state, command, now=101.0, lease=mine)
    do(state, AcquireLease("agent", "worker-2", 10.0, replacing="worker-1"), at=102.0)
    error = refuse(LeaseLostError, state, command, at=103.0, lease=mine)
    assert (error.name, error.token) == ("agent", 2)
    assert str(error) == "lease 'agent' of 'worker-1' with token 2 is lost: 'worker-2' has it with token 3"
    decide(state, command, now=103.0, lease=Guard("agent", 3, "worker-2", ""))


def test_expired_lease_that_nobody_took_is_good() -> None:
    """The token fences; the clock only says when others may take over."""
    state = conversation()
    do(state, AcquireLease("agent", "worker-1", 10.0), at=100.0)
    assert decide(state, SetAttributes({"a": 1}), now=5000.0, lease=Guard("agent", 1, "worker-1", ""))


@pytest.mark.parametrize(("name", "token"), [("agent", 1), ("summary", 2), ("agent", 0)])
def test_lease_that_is_nobodys_is_lost(name: str, token: int) -> None:
    """Given back, of another name, or of a token that never was."""
    state = conversation()
    do(state, AcquireLease("agent", "worker-1", 10.0), at=100.0)
    do(state, ReleaseLease("agent", "worker-1", 1), at=101.0)
    lease = Guard(name, token, "worker-1", "")
    assert "nobody has it" in str(refuse(LeaseLostError, state, SetAttributes({"a": 1}), at=102.0, lease=lease))


@pytest.mark.parametrize(
    ("other", "told"),
    [
        (Guard("agent", 1, "worker-2", "b"), "lease 'agent' of 'worker-2' with token 1 is lost: 'worker-1' has it"),
        (Guard("agent", 2, "worker-1", "b"), "lease 'agent' of 'worker-1' with token 2 is lost: 'worker-1' has it"),
        (Guard("agent", 1, "worker-1", "a"), "of an earlier life of the conversation, is lost: 'worker-1' has it"),
        (Guard("summary", 1, "worker-1", "a"), "of an earlier life of the conversation, is lost: nobody has it"),
        (Guard("summary", 1, "worker-1", "b"), "lease 'summary' of 'worker-1' with token 1 is lost: nobody has it"),
    ],
)
def test_lease_is_lost_if_anything_differs(other: Guard, told: str) -> None:
    """Holder, token, or the life of the conversation: the error tells whose it was, and whose it is."""
    state = conversation()
    state.life = "b"
    do(state, AcquireLease("agent", "worker-1", 10.0), at=100.0)
    assert told in str(refuse(LeaseLostError, state, SetAttributes({"a": 1}), at=101.0, lease=other))
    assert decide(state, SetAttributes({"a": 1}), now=101.0, lease=Guard("agent", 1, "worker-1", "b"))


def test_lease_names_the_life_it_was_acquired_in() -> None:
    """A renewal keeps it, also where a version that knew no lives acquired the lease."""
    state = conversation()
    do(state, AcquireLease("agent", "worker-1", 10.0), at=100.0)
    state.life = "b"
    twin = state.copy()
    (renewed,) = do(twin, AcquireLease("agent", "worker-1", 10.0), at=105.0)
    assert renewed == LeaseAcquired(Lease("agent", "worker-1", 1, 115.0, ""), renewed=True)
    (taken,) = do(twin, AcquireLease("agent", "worker-2", 10.0), at=200.0)
    assert taken == LeaseAcquired(Lease("agent", "worker-2", 3, 210.0, "b"), renewed=False)


def test_deposed_holder_learns_that_first() -> None:
    """Before anything else that is wrong with its command."""
    state = conversation()
    do(state, CloseConversation("done"))
    refuse(LeaseLostError, state, AppendItems((message("m"),)), lease=Guard("agent", 1, "worker-1", ""))


def test_release_takes_holder_and_token() -> None:
    """A late release by a former holder must not take the lease from the present one."""
    state = conversation()
    do(state, AcquireLease("agent", "worker-1", 10.0), at=100.0)
    do(state, AcquireLease("agent", "worker-2", 10.0), at=110.0)
    for stale in (
        ReleaseLease("agent", "worker-1", 1),
        ReleaseLease("agent", "worker-2", 1),
        ReleaseLease("x", "y", 2),
        ReleaseLease("agent", "worker-2", 2, "another life"),
    ):
        assert do(state, stale) == []
    assert do(state, ReleaseLease("agent", "worker-2", 2))
    assert state.leases == {}


def test_leases_held_at_one_time_are_bounded() -> None:
    """Expired ones do not count, and make room; one's own can always be renewed."""
    state = conversation(leases=2)
    do(state, AcquireLease("a", "w", 10.0), at=100.0)
    do(state, AcquireLease("b", "w", 20.0), at=100.0)
    error = refuse(InvalidInputError, state, AcquireLease("c", "w", 10.0), at=105.0)
    assert (error.field, str(error)) == ("name", "name: 2 leases are held; the limit is 2")
    assert do(state, AcquireLease("b", "w", 20.0), at=105.0)
    do(state, AcquireLease("c", "w", 10.0), at=110.0)
    assert set(state.leases) == {"b", "c"}


def test_expired_leases_are_kept_while_there_is_room() -> None:
    """The newest of them, for their holders to renew; those that expired first make room."""
    state = conversation(leases=3)
    for name, duration in (("a", 3.0), ("b", 1.0), ("c", 2.0)):
        do(state, AcquireLease(name, "w", duration), at=100.0)
    do(state, AcquireLease("d", "w", 50.0), at=110.0)
    assert list(state.leases) == ["a", "c", "d"]
    do(state, AcquireLease("e", "w", 50.0), at=110.0)
    assert list(state.leases) == ["a", "d", "e"]
    assert do(state, AcquireLease("a", "w", 5.0), at=110.0) == [LeaseAcquired(Lease("a", "w", 1, 115.0), renewed=True)]


# Retention


def test_retention_is_set_and_given_up() -> None:
    """What is the case already makes no entry; at first it is what the settings say."""
    state = conversation()
    assert do(state, SetRetention(None)) == []
    assert do(state, SetRetention(60.0)) == [RetentionChanged(60.0)]
    assert do(state, SetRetention(60.0)) == []
    assert (state.retention, state.copy().retention) == (60.0, 60.0)
    assert do(state, SetRetention(None)) == [RetentionChanged(None)]
    assert state.retention is None


@pytest.mark.parametrize("seconds", [0.0, 0.999, 366 * 86_400.0 + 1, -1.0, float("nan")])
def test_retention_has_bounds(seconds: float) -> None:
    """A second at least, a year at most."""
    error = refuse(InvalidInputError, conversation(), SetRetention(seconds))
    assert error.field == "retention"
    assert do(conversation(), SetRetention(1.0))
    assert do(conversation(), SetRetention(366 * 86_400.0))


# Closing


@pytest.mark.parametrize(
    "command",
    [
        AppendItems((message("m"),)),
        AppendItems(()),
        ClearHistory(),
        SetSummary("x", 0),
        JoinParticipant(identity="bob", device_id="web"),
        UpdateParticipant(identity="alice", name="A"),
        SetAttributes({"a": 1}),
        AcquireLease("agent", "worker-1", 10.0),
    ],
    ids=lambda command: type(command).__name__,
)
def test_closed_conversation_takes_no_writes(command: Command) -> None:
    """With the reason in the refusal; after reopening it takes them again."""
    state = conversation()
    do(state, JoinParticipant(identity="alice", device_id="web"))
    do(state, CloseConversation("caller hung up"))
    assert "closed (caller hung up); reopen" in str(refuse(ConversationClosedError, state, command))
    do(state, ReopenConversation())
    decide(state, command, now=1.0)


def test_closed_conversation_can_be_tidied() -> None:
    """Leaving, giving back, saying how long it is kept, and taking out what nobody may keep, are part of the end."""
    state = conversation()
    do(state, AppendItems((message("m"),)))
    do(state, JoinParticipant(identity="alice", device_id="web"))
    do(state, AcquireLease("agent", "worker-1", 10.0))
    do(state, CloseConversation("done"))
    assert do(state, LeaveParticipant("alice"))
    assert do(state, ReleaseLease("agent", "worker-1", 3))
    assert do(state, RemoveItems(("m",))) == [ItemsRemoved(("m",))]
    assert do(state, SetRetention(60.0))


def test_closing_twice_keeps_the_first_reason() -> None:
    """And reopening what is open changes nothing."""
    state = conversation()
    assert do(state, ReopenConversation()) == []
    assert do(state, CloseConversation("first"), at=7.0) == [ConversationClosed("first")]
    assert do(state, CloseConversation("second"), at=8.0) == []
    assert state.closing == Closing("first", 7.0)
    do(state, ReopenConversation())
    assert state.closing is None


# Entries


@pytest.mark.parametrize("seq", [0, 1, 3])
def test_only_the_next_entry_is_applied(seq: int) -> None:
    """A repeated or a missing one is an error, and changes nothing."""
    state = conversation()
    do(state, SetAttributes({"a": 1}))
    before = encode_snapshot(state)
    with pytest.raises(ValueError, match=f"entry {seq} does not follow 1"):
        state.apply(Entry(seq, 1, 2.0, AttributesChanged({"a": 2}), "request"))
    assert encode_snapshot(state) == before


def test_deleted_id_goes_on_counting() -> None:
    """Its next life starts where the last one ended, so that no position means two things."""
    state = ConversationState(seq=41)
    do(state, SetAttributes({"a": 1}, expected_seq=41))
    assert (state.seq, state.attributes_seq) == (42, 42)


def test_request_is_remembered_with_its_result() -> None:
    """By its first entry: position, epoch, time, kind, and the participant or lease it gave."""
    state = conversation(items=4)
    do(state, AppendItems(tuple(message(f"m{n}") for n in range(5))), at=2.0, request_id="r1")
    do(state, JoinParticipant(identity="alice", device_id="web"), at=3.0, request_id="r2")
    do(state, AcquireLease("agent", "worker-1", 9.0), at=4.0, request_id="r3")
    assert list(state.requests.values()) == [
        Remembered(1, 1, 2.0, "items_appended"),
        Remembered(3, 1, 3.0, "participant_joined", state.participants["alice"]),
        Remembered(4, 1, 4.0, "lease_acquired", state.leases["agent"]),
    ]


def test_request_memory_is_bounded_by_number() -> None:
    """The oldest is forgotten first."""
    state = conversation(requests=2)
    for number in range(3):
        do(state, SetAttributes({"n": number}), request_id=f"r{number}")
    assert list(state.requests) == ["r1", "r2"]


def test_no_date_makes_a_request_old() -> None:
    """Dates are by a clock that may be wrong: who holds the state says up to where requests are forgotten."""
    state = conversation(request_age=10.0)
    for at in (100.0, 105.0, 9999.0):
        do(state, SetAttributes({"at": at}), at=at, request_id=f"r{at:.0f}")
    assert list(state.requests) == ["r100", "r105", "r9999"]
    state.forget_requests(through_seq=2)
    assert list(state.requests) == ["r9999"]


def test_copy_changes_on_its_own() -> None:
    """The working state runs ahead of what is durable."""
    state = conversation(items=4)
    do(state, AppendItems(tuple(message(f"m{n}") for n in range(4))), request_id="r1")
    do(state, JoinParticipant(identity="alice", device_id="web"))
    do(state, AcquireLease("agent", "worker-1", 10.0))
    do(state, SetAttributes({"a": 1}))
    do(state, SetRetention(60.0))
    before = encode_snapshot(state)
    twin = state.copy()
    assert encode_snapshot(twin) == before
    do(twin, AppendItems((message("m4"),)), request_id="r2")
    do(twin, LeaveParticipant("alice"))
    do(twin, ReleaseLease("agent", "worker-1", 3))
    do(twin, SetAttributes({"b": 1}))
    do(twin, SetRetention(None))
    assert encode_snapshot(state) == before


@given(st.lists(items, max_size=12), items, limits)
def test_one_new_item_is_decided_like_several(history: list[StoredItem], item: StoredItem, bounds: Limits) -> None:
    """The short way that a single item takes leads where the way of several leads: here, of one that is given twice."""
    state = ConversationState(replace(bounds, bytes=1 << 20, item_bytes=1 << 19))
    for number, earlier in enumerate(history):
        with suppress(RefusedError):
            for event in decide(state, AppendItems((earlier,)), now=1.0):
                state.apply(Entry(state.seq + 1, 1, 1.0, event, f"r{number}"))
    state.limits = replace(bounds, bytes=max(bounds.bytes, 2 * item.size), item_bytes=max(bounds.item_bytes, item.size))
    assert outcome(state, AppendItems((item,))) == outcome(state, AppendItems((item, item)))


def outcome(state: ConversationState, command: Command) -> object:
    """Return the events, or the refusal's words."""
    try:
        return decide(state, command, now=1.0)
    except RefusedError as refusal:
        return type(refusal), str(refusal)


@pytest.mark.parametrize("bound", [{"item_bytes": 10}, {"bytes": 10}])
def test_one_item_beyond_a_bound_of_bytes_is_refused(bound: dict[str, int]) -> None:
    """Also by an owner whose bounds are tighter than those its client has checked."""
    with pytest.raises(ItemTooLargeError):
        decide(conversation(**bound), AppendItems((message("u0"),)), now=1.0)


@pytest.mark.parametrize("change", [{"id": ""}, {"type": ""}, {"role": None}, {"call_id": None}, {"id": None}])
@pytest.mark.parametrize("count", [1, 2])
def test_an_item_that_could_not_be_read_back_is_refused(change: dict[str, Any], count: int) -> None:
    """Whatever a client sends: no acknowledged entry makes the conversation unreadable."""
    state = conversation()
    broken = message("a", "hello")._replace(**change)
    command = AppendItems((broken, message("b", "fine"))[:count])
    with pytest.raises(InvalidInputError):
        decide(state, command, now=1.0)
    assert state.seq == 0
