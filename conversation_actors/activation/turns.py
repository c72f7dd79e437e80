"""The order of the batches of each sender: none is decided before its turn, and none once its turn is over.

A sender may have two batches on their way, by ways that overtake each other, and copies of both. What the batches'
numbers say keeps the commands in order: a batch that must follow another one waits for its sender to send it again,
and a copy that comes late leads to nothing new. A command that was refused stays refused, though its sender has not
heard of that and repeats it: what came after it was decided without it.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from conversation_actors.activation.requests import NO_REFUSALS, Decided, Decider
from conversation_actors.errors import ConflictError, RefusedError
from conversation_actors.protocol import Request, Turn
from conversation_actors.state.facts import MIN_REQUESTS

MAX_SENDERS = 256
"""Senders that are known, the latest. One that was forgotten loses nothing: it sends a batch once more."""


@dataclass(slots=True)
class _Sender:
    number: int = 0
    """The latest batch of which anything was decided."""
    is_whole: bool = False
    """Whether all of that batch happened, so that its requests are remembered."""
    refusals: Mapping[int, RefusedError] = field(default_factory=lambda: NO_REFUSALS)
    """What was refused of that batch, by place: the sender may have been told by one copy of it."""
    refused: OrderedDict[str, RefusedError] = field(default_factory=OrderedDict)
    """What was refused of the latest batches, by the names that the sender has made, each for one command only."""
    through: int = -1
    """The place of the last of its commands that happened before this activation; -1 as long as nobody has looked."""
    since: int = 0
    """The place up to which such commands may have happened and be forgotten by now."""
    told_in: int = 0
    """The latest batch that was answered."""
    told: int = 0
    """The position up to which that answer told the entries."""


class Turns:
    """Decides batches in their turns. Of one activation, as what it knows of the senders is."""

    def __init__(self, decider: Decider, *, senders: int = MAX_SENDERS) -> None:
        """Let `decider` decide; know no sender yet, and never more than `senders`."""
        self._decider, self._most = decider, senders
        self._senders: OrderedDict[str, _Sender] = OrderedDict()

    def __len__(self) -> int:
        """Return the number of senders that are known."""
        return len(self._senders)

    def decide(self, requests: Sequence[Request], turn: Turn | None) -> Decided:
        """Decide a batch if it is its turn.

        A batch whose predecessor has not happened as a whole leads to nothing, and has no replies: after a refusal its
        sender is to know of that first. A batch that is not newer than what was decided last is a copy: its requests
        are answered as they were, up to the first that was not decided.
        """
        if turn is None:
            return self._decider.decide(requests)
        sender = self._known(turn.sender)
        if turn.number <= sender.number:
            return self._decider.recall(requests, sender.refusals if turn.number == sender.number else NO_REFUSALS)
        if turn.after and not (sender.is_whole and turn.after == sender.number):
            return Decided((), {})
        sender.number, sender.is_whole, sender.refusals = turn.number, False, NO_REFUSALS  # also if a defect ends it
        decided = self._decider.decide(requests, self._refused_before(requests, turn.sender, sender))
        self._note(requests, decided, turn.sender, sender)
        return decided

    def _refused_before(self, requests: Sequence[Request], name: str, sender: _Sender) -> Mapping[int, RefusedError]:
        """Return, by place, what an earlier attempt to which the answer was lost has refused.

        That is also what another activation has not done while it did what comes after it. What may have been forgotten
        since is decided anew, as all is that the request memory does not reach back to.
        """
        known, own = self._decider.working.requests, f"{name}."
        if sender.through < 0:  # it is new here; what it has sent is remembered in order
            places = [_place_of(one) for one in known if one.startswith(own)]
            sender.through = places[-1] if places else 0
            if places and len(known) >= self._decider.working.limits.requests:
                sender.since = places[0]
        if not (sender.refused or sender.through):
            return NO_REFUSALS
        refusals = {}
        for place, request in enumerate(requests):
            identity = request.request_id
            if not identity.startswith(own) or identity in known:
                continue
            if identity in sender.refused:
                refusals[place] = sender.refused[identity]
            elif sender.since < _place_of(identity) <= sender.through:
                refusals[place] = ConflictError("refused by an owner that ended before it could tell why")
        return refusals

    @staticmethod
    def _note(requests: Sequence[Request], decided: Decided, name: str, sender: _Sender) -> None:
        """Remember what was decided of a batch."""
        own = f"{name}."
        refusals: dict[int, RefusedError] = {}
        for place, (_, reply) in enumerate(decided.replies):
            if isinstance(reply, RefusedError):
                refusals[place] = reply
                if requests[place].request_id.startswith(own):
                    sender.refused[requests[place].request_id] = reply
        while len(sender.refused) > MIN_REQUESTS:
            sender.refused.popitem(last=False)
        sender.refusals = refusals
        sender.is_whole = len(decided.replies) == len(requests) and not refusals

    def told_before(self, turn: Turn | None) -> int:
        """Return the position up to which the answer to the batch before this one tells the entries; 0 if unknown.

        That answer is on its way: this one need not tell them again.
        """
        sender = None if turn is None or not turn.after else self._senders.get(turn.sender)
        return sender.told if sender is not None and turn is not None and sender.told_in == turn.after else 0

    def is_followed(self, turn: Turn | None) -> bool:
        """Tell whether a later batch of the sender was decided, whose answer tells of its own entries at less cost."""
        sender = None if turn is None else self._senders.get(turn.sender)
        return sender is not None and turn is not None and sender.number > turn.number

    def note_told(self, turn: Turn | None, seq: int) -> None:
        """Remember that the answer to this batch tells the entries up to `seq`."""
        sender = None if turn is None else self._senders.get(turn.sender)
        if sender is not None and turn is not None and turn.number >= sender.told_in:
            sender.told_in, sender.told = turn.number, seq

    def _known(self, name: str) -> _Sender:
        sender = self._senders.get(name)
        if sender is None:
            sender = self._senders[name] = _Sender()
            if len(self._senders) > self._most:
                self._senders.popitem(last=False)
        else:
            self._senders.move_to_end(name)
        return sender


def _place_of(name: str) -> int:
    """Return the place, among all commands of its sender, of the (first) one that a sender has named; 0 if none."""
    place = name.rpartition(".")[2].partition("-")[0]
    return int(place) if place.isdecimal() else 0
