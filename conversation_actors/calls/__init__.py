"""Calls: what the entries of a conversation tell of the stays of people and agents in it. No I/O, no clock.

`CallFold` takes entries in order and returns the happenings that a business is told of. The last one of each call has
its `SessionRecord`.
"""

from conversation_actors.calls.fold import GRACE, CallFold
from conversation_actors.calls.happenings import HAPPENINGS, REPORTS, Happening
from conversation_actors.calls.record import SessionRecord

__all__ = ["GRACE", "HAPPENINGS", "REPORTS", "CallFold", "Happening", "SessionRecord"]
