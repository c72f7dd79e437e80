"""Random commands at random times against one conversation, checked after every step.

The machine does what an activation does (decide, store, apply, with a clock that does not go back within a
conversation) and keeps, beside it, the simplest model of what the window and the leases should hold.
"""

from collections import OrderedDict
from itertools import pairwise
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from conversation_actors.codec import decode_entry, decode_snapshot, encode_entry, encode_snapshot
from conversation_actors.errors import ConversationClosedError, LeaseHeldError, LeaseLostError, RefusedError
from conversation_actors.items import StoredItem
from conversation_actors.state import (
    AcquireLease,
    Command,
    ConversationState,
    Entry,
    Event,
    Guard,
    HistoryCleared,
    ItemsAppended,
    ItemsEvicted,
    ItemsRemoved,
    Lease,
    LeaseAcquired,
    LeaseReleased,
    Limits,
    ReopenConversation,
    RetentionChanged,
    decide,
)
from tests.support.strategies import (
    LIFE,
    appends,
    ending_commands,
    late_appends,
    lease_commands,
    lease_names,
    limits,
    other_commands,
    participant_commands,
    removals,
)

EPOCH = 3
NO_ROOM = Limits(items=0, bytes=0)

steps = st.sampled_from([0.0, 0.0, 0.001, 1.0, 30.0, 5000.0, -2.0, -4000.0])
requests = st.none() | st.integers(0, 30)


def everything(state: ConversationState) -> tuple[Any, ...]:
    """All that a state is: its stored form, the order in which its items would leave, and its counters."""
    window = state.window
    leaving = [item.id for item in window.evictions((), NO_ROOM)]
    counters = window.size, window.pinned_count, window.pinned_size
    return encode_snapshot(state), leaving, window.orphans, counters, state.limits


class Conversation(RuleBasedStateMachine):
    """One conversation under random commands."""

    @initialize(chosen=limits, earlier=st.lists(appends, max_size=4))
    def open(self, chosen: Limits, earlier: list[Command]) -> None:
        """Start a conversation with small limits and something in its window."""
        self.state = ConversationState(chosen)
        self.state.life = LIFE
        self.clock = 1000.0
        self.journal: list[bytes] = []
        self.snapshots = [encode_snapshot(self.state)]
        self.items: OrderedDict[str, StoredItem] = OrderedDict()
        self.left_running: list[str] = []
        self.leases: dict[str, Lease] = {}
        self.tokens: dict[str, list[int]] = {}
        self.holders: dict[tuple[str, int], str] = {}
        self.retention: float | None = None
        self.turned_away = 0
        for command in earlier:
            self.ask(command, 0.0, None)

    @rule(command=appends, step=steps, request=requests)
    def append(self, command: Command, step: float, request: int | None) -> None:
        """Append a few items."""
        self.ask(command, step, request)

    @rule(command=late_appends, step=steps)
    def append_late(self, command: Command, step: float) -> None:
        """Append a call or an output alone: tools take their time."""
        self.ask(command, step, None)

    @rule(command=participant_commands, step=steps, request=requests)
    def change_participants(self, command: Command, step: float, request: int | None) -> None:
        """Join, leave, update."""
        self.ask(command, step, request)

    @rule(command=lease_commands, step=steps, request=requests)
    def change_leases(self, command: Command, step: float, request: int | None) -> None:
        """Acquire, renew, release."""
        self.ask(command, step, request)

    @rule(command=other_commands, step=steps, request=requests)
    def change_facts(self, command: Command, step: float, request: int | None) -> None:
        """Set attributes or the summary."""
        self.ask(command, step, request)

    @rule(command=other_commands | participant_commands, name=lease_names, step=steps, data=st.data())
    def write_as_a_holder(self, command: Command, name: str, step: float, data: st.DataObject) -> None:
        """Write in the name of a lease, with any token it ever had; now and then of another holder, or life."""
        token = data.draw(st.sampled_from(self.tokens.get(name, [1])))
        acquired = self.holders.get((name, token), "worker-1")
        holder = data.draw(st.sampled_from([acquired, acquired, acquired, "worker-2"]))
        life = data.draw(st.sampled_from([LIFE, LIFE, LIFE, "another"]))
        self.ask(command, step, None, lease=Guard(name, token, holder, life))

    @rule(command=removals, step=steps, request=requests)
    def remove(self, command: Command, step: float, request: int | None) -> None:
        """Take out items that may be there."""
        self.ask(command, step, request)

    @precondition(lambda self: len(self.state.window) > self.state.limits.items // 2)
    @rule(command=ending_commands, step=steps, request=requests)
    def end(self, command: Command, step: float, request: int | None) -> None:
        """Clear or close; not before there is something to end."""
        self.ask(command, step, request)

    def ask(self, command: Command, step: float, request: int | None, *, lease: Guard | None = None) -> None:
        """Decide one command, and store and apply what it leads to. A second refusal by closing reopens."""
        self.clock += step
        now = max(self.clock, self.state.changed_at)
        request_id = None if request is None else f"request-{request}"
        if request_id in self.state.requests:
            return
        before = everything(self.state)
        events: tuple[Event, ...] = ()
        try:
            events = decide(self.state, command, now=now, lease=lease)
        except RefusedError as refusal:
            self.check_refused_lease(command, refusal, now, lease)
            if isinstance(refusal, ConversationClosedError):
                self.turned_away += 1
        else:
            self.check_granted_lease(command, now)
            assert not self.is_lost(lease)
        assert everything(self.state) == before
        for event in events:
            self.take(Entry(self.state.seq + 1, EPOCH, now, event, request_id))
            request_id = None
        self.check_between_commands()
        if self.turned_away > 1:
            self.turned_away = 0
            self.ask(ReopenConversation(), 0.0, None)

    @rule(data=st.data())
    def recover(self, data: st.DataObject) -> None:
        """Replay the journal from any earlier snapshot: it gives the same state."""
        start = data.draw(st.integers(0, len(self.snapshots) - 1))
        self.check_recovery_from(start)

    def teardown(self) -> None:
        """Replay the whole journal."""
        if hasattr(self, "state"):
            self.check_recovery_from(0)

    def take(self, entry: Entry) -> None:
        """Store and apply one entry, in the model too."""
        stored = encode_entry(entry)
        assert decode_entry(stored) == entry
        assert encode_entry(decode_entry(stored)) == stored
        held = dict(self.state.leases)
        self.state.apply(entry)
        self.journal.append(stored)
        self.snapshots.append(encode_snapshot(self.state))
        if entry.request_id is not None:
            assert entry.request_id in self.state.requests
        match entry.event:
            case ItemsAppended(items):
                self.items.update({item.id: item for item in items})
            case ItemsEvicted(items):
                self.forget(items)
                assert not any(item.type == "message" and item.role in {"system", "developer"} for item in items)
            case ItemsRemoved(identities):
                self.forget(tuple(self.items[identity] for identity in identities if identity in self.items))
                assert self.state.forgotten_seq == entry.seq
            case HistoryCleared():
                self.forget(tuple(self.items.values()))
            case LeaseAcquired(lease, renewed):
                before = held.get(lease.name)
                assert renewed == (before is not None and before.holder == lease.holder)
                if before is not None and renewed:
                    assert lease.token == before.token
                else:
                    assert lease.token > max(self.tokens.get(lease.name, [0]))
                self.leases[lease.name] = lease
                self.tokens.setdefault(lease.name, []).append(lease.token)
                self.holders[lease.name, lease.token] = lease.holder
                assert lease.life == LIFE
                self.check_dropped_leases({**held, lease.name: lease}, entry.at)
            case LeaseReleased(name):
                del self.leases[name]
            case RetentionChanged(seconds):
                assert seconds != self.retention
                self.retention = seconds
            case _:
                pass

    def forget(self, items: tuple[StoredItem, ...]) -> None:
        """Items leave the model: each is there, once, and has the content it had last."""
        for item in items:
            assert self.items.pop(item.id) == item
        finished = {item.call_id for item in items if item.type == "function_call_output"}
        running = [i.call_id for i in items if i.type == "function_call" and i.call_id not in finished]
        for call_id in running:
            self.left_running = [*(c for c in self.left_running if c != call_id), call_id]
        self.left_running = self.left_running[-self.state.limits.items :]
        # A call leaves with all its outputs, or not at all.
        assert not {i.call_id for i in items if i.call_id} & {i.call_id for i in self.items.values()}

    def check_between_commands(self) -> None:
        """Bounds hold whenever a command is done, and no output stays whose call left while it was running."""
        bounds, window = self.state.limits, self.state.window
        assert len(window) <= bounds.items
        assert sum(item.size for item in window) <= bounds.bytes
        assert len(self.state.participants) <= bounds.participants
        assert len(self.state.leases) <= bounds.leases
        calls = {item.call_id for item in window if item.type == "function_call"}
        for item in window:
            if item.type == "function_call_output" and item.call_id not in calls:
                assert item.call_id not in self.left_running

    def check_refused_lease(self, command: Command, refusal: RefusedError, now: float, lease: Guard | None) -> None:
        """Check that a lost lease, and nothing else, is called lost, and what is held is somebody else's, unexpired."""
        assert isinstance(refusal, LeaseLostError) is self.is_lost(lease)
        if isinstance(refusal, LeaseHeldError):
            assert isinstance(command, AcquireLease)
            held = self.leases[command.name]
            assert held.expires_at > now
            assert (held.holder, held.expires_at) == (refusal.holder, refusal.expires_at)
            assert held.holder not in {command.holder, command.replacing}

    def check_granted_lease(self, command: Command, now: float) -> None:
        """Nobody gets what another holds."""
        held = self.leases.get(command.name) if isinstance(command, AcquireLease) else None
        if held is not None and isinstance(command, AcquireLease) and held.expires_at > now:
            assert held.holder in {command.holder, command.replacing}

    def check_dropped_leases(self, before: dict[str, Lease], now: float) -> None:
        """No more leases are dropped than there is no room for: expired ones, the oldest."""
        kept = self.state.leases
        dropped = [lease for name, lease in before.items() if name not in kept]
        assert len(kept) == min(len(before), self.state.limits.leases)
        assert all(lease.expires_at <= now for lease in dropped)
        oldest_kept = min((lease.expires_at for lease in kept.values()), default=now)
        assert all(lease.expires_at <= oldest_kept for lease in dropped)
        for lease in dropped:
            del self.leases[lease.name]

    def is_lost(self, lease: Guard | None) -> bool:
        """Whether a write in the name of this lease has to be refused."""
        if lease is None:
            return False
        name, token, holder, life = lease
        held = self.leases.get(name)
        return held is None or (held.token, held.holder, held.life) != (token, holder, life)

    def check_recovery_from(self, start: int) -> None:
        """Rebuild from the snapshot at `start`, and compare."""
        recovered = decode_snapshot(self.snapshots[start], self.state.limits)
        for stored in self.journal[start:]:
            recovered.apply(decode_entry(stored))
        assert everything(recovered) == everything(self.state)

    @invariant()
    def window_is_what_was_appended_and_neither_left_nor_was_cleared(self) -> None:
        """Every item is in the window, or left it by an event; order and content are those of the model."""
        window = self.state.window
        assert list(window) == list(self.items.values())
        assert window.size == sum(item.size for item in self.items.values())
        assert window.pinned_size == sum(item.size for item in self.items.values() if item.pinned)

    @invariant()
    def positions_have_no_gaps(self) -> None:
        """Entries are numbered from 1, one by one."""
        assert [decode_entry(stored).seq for stored in self.journal[-2:]] == [
            seq for seq in (self.state.seq - 1, self.state.seq) if seq > 0
        ]
        assert self.state.seq == len(self.journal)

    @invariant()
    def snapshot_reads_back(self) -> None:
        """Check that a snapshot, read and written again, is the same bytes and state; so is a copy."""
        assert everything(decode_snapshot(self.snapshots[-1], self.state.limits)) == everything(self.state)
        assert everything(self.state.copy()) == everything(self.state)

    @invariant()
    def request_memory_is_bounded(self) -> None:
        """By number; by age only where whoever holds the state says so."""
        assert len(self.state.requests) <= self.state.limits.requests

    @invariant()
    def retention_is_what_was_set_last(self) -> None:
        """Within its bounds, whatever was asked for."""
        assert self.state.retention == self.retention
        assert self.retention is None or 1.0 <= self.retention <= 366 * 86_400.0

    @invariant()
    def tokens_grow(self) -> None:
        """Check that the token of a lease never goes down, and is another one for another holder."""
        assert self.state.leases == self.leases
        assert all(earlier <= later for seen in self.tokens.values() for earlier, later in pairwise(seen))


TestConversation = Conversation.TestCase
TestConversation.settings = settings(
    max_examples=min(80, settings().max_examples), stateful_step_count=60, deadline=None
)
