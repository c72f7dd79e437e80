"""From requests to replies and entries, before anything is durable."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from conversation_actors.activation.positions import check_named_position
from conversation_actors.errors import ConflictError, RefusedError
from conversation_actors.protocol import Done, Echo, Reply, Request
from conversation_actors.state import (
    EVENT_OF,
    Command,
    ConversationState,
    Entry,
    ItemsAppended,
    ItemsEvicted,
    JoinParticipant,
    NothingChanged,
    Participant,
    Remembered,
    UpdateParticipant,
    decide,
)
from conversation_actors.state.commands import described
from conversation_actors.state.conversation import remembered
from conversation_actors.store import Claim

NO_REFUSALS: Mapping[int, RefusedError] = MappingProxyType({})


class Decided(NamedTuple):
    """Replies, each with the position that must be durable before the reply may leave.

    `echoes` are the entries that the sender can be told of without their items' bytes, by position.
    """

    replies: Sequence[tuple[int, Reply]]
    echoes: Mapping[int, Echo]

    @property
    def seq(self) -> int:
        """The position that must be durable before all of the replies may leave."""
        return self.replies[-1][0] if self.replies else 0


class Decider:
    """Decides one request after the other against the working state, which runs ahead of what is durable."""

    def __init__(
        self,
        working: ConversationState,
        claim: Claim,
        *,
        clock: Callable[[], float],
        submit: Callable[[Sequence[Entry]], None],
    ) -> None:
        """Change `working`, and hand each decision's entries to `submit`, which may refuse them."""
        self.working = working
        self._claim, self._clock, self._submit = claim, clock, submit

    def decide(self, requests: Sequence[Request], refusals: Mapping[int, RefusedError] = NO_REFUSALS) -> Decided:
        """Decide in order; after a refused group nothing more is decided.

        `refusals` are those, by place, that were refused before, and are refused again.
        """
        replies: list[tuple[int, Reply]] = []
        echoes: dict[int, Echo] = {}
        for number, request in enumerate(requests):
            refusal = refusals.get(number)
            reply, entries = self._decide(request) if refusal is None else (refusal, ())
            replies.append((self.working.seq, reply))
            echoes.update(_echoes(number, entries))
            if request.is_group and isinstance(reply, RefusedError):
                break
        return Decided(replies, echoes)

    def recall(self, requests: Sequence[Request], refusals: Mapping[int, RefusedError]) -> Decided:
        """Answer requests that were decided, without deciding anything: `refusals` by place, others from memory.

        It ends before the first request that neither knows, and after a refused group, as `decide` does.
        """
        replies: list[tuple[int, Reply]] = []
        for place, request in enumerate(requests):
            reply: Reply | None = refusals.get(place)
            if reply is None:
                try:
                    reply = self._repeat(request)
                except RefusedError as refusal:
                    reply = _as_reply(refusal)
            if reply is None:
                break
            replies.append((self.working.seq, reply))
            if request.is_group and isinstance(reply, RefusedError):
                break
        return Decided(replies, {})

    def _decide(self, request: Request) -> tuple[Reply, Sequence[Entry]]:
        """Return the reply, and what the request leads to now: nothing if it is a repeat, or refused."""
        try:
            repeated = self._repeat(request)
            return (repeated, ()) if repeated else self._first_time(request)
        except RefusedError as refusal:
            return _as_reply(refusal), ()

    def _repeat(self, request: Request) -> Done | None:
        kept = self.working.requests.get(request.request_id)
        if kept is None:
            return None
        if kept.kind != EVENT_OF[type(request.command)]:
            message = f"request_id {request.request_id!r} was used for another command ({kept.kind})"
            raise ConflictError(message)
        if None not in (kept.digest, request.digest) and kept.digest != request.digest:
            message = f"request_id {request.request_id!r} was used at {kept.seq} for other content ({kept.kind})"
            raise ConflictError(message)
        return self._done(kept, request.command)

    def _first_time(self, request: Request) -> tuple[Done, Sequence[Entry]]:
        working = self.working
        check_named_position(self._claim, request)
        now = max(self._clock(), working.changed_at)
        events = decide(working, request.command, now=now, lease=request.lease)
        if not events:
            asked = EVENT_OF[type(request.command)]
            events = (NothingChanged(asked, self._participant_of(request.command)),)
        epoch, seq = self._claim.epoch, working.seq + 1
        entries = [Entry(seq, epoch, now, events[0], request.request_id, request.digest)]
        for event in events[1:]:
            entries.append(Entry(seq + len(entries), epoch, now, event))
        self._submit(entries)  # first: what cannot be encoded must leave no trace in the working state
        for entry in entries:
            working.apply(entry)
        return self._done(remembered(entries[0]), request.command), entries

    def _done(self, kept: Remembered, command: Command) -> Done:
        """Return the first result; of a participant, the present state if too many have been remembered since.

        Who has been forgotten altogether is answered with as it was described, and gone.
        """
        result = self._participant_of(command) if kept.result is None else kept.result
        if result is None and isinstance(command, (JoinParticipant, UpdateParticipant)):
            result = described(command, at=kept.at)
        return Done(kept.seq, kept.epoch, result)

    def _participant_of(self, command: Command) -> Participant | None:
        """Return the participant a command is about, as it is now; None if the command is about none."""
        return self.working.participants.get(getattr(command, "identity", ""))


def _as_reply(refusal: RefusedError) -> RefusedError:
    """Return the error without the frames it came through: it is kept for repeats, and they hold its whole batch."""
    refusal.__context__ = refusal.__cause__ = None
    return refusal.with_traceback(None)


def _echoes(number: int, entries: Sequence[Entry]) -> Iterator[tuple[int, Echo]]:
    """Yield those of its `entries` that the sender of request `number` can be told without bytes, by position."""
    for entry in entries:
        match entry.event:
            case ItemsAppended():  # of all that were sent, those that change the window
                yield entry.seq, Echo(entry.seq, entry.epoch, entry.at, number)
            case ItemsEvicted(items):
                yield entry.seq, Echo(entry.seq, entry.epoch, entry.at, None, tuple([item.id for item in items]))
