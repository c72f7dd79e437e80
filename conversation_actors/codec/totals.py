"""What a conversation has counted, as fields of a snapshot's header; older versions wrote this schema without them."""

from typing import Any

from conversation_actors.codec.fields import Fields, integer, number, typed
from conversation_actors.state import ConversationState

TOTALS = ("total_items", "talked_for", "counted_all", "counted_at")
"""``counted_at`` is the position that was counted up to. A version that does not count copies all four, and goes on to
later positions."""


def totals_fields(state: ConversationState) -> dict[str, Any]:
    """Return the totals as stored; none if nothing was counted in this state."""
    has_counted = bool(state.total_items or state.talked_for or (state.has_counted_all and state.seq))
    counted = (state.total_items, state.talked_for, state.has_counted_all, state.seq)
    return dict(zip(TOTALS, counted, strict=True)) if has_counted else {}


def read_totals(header: Fields, state: ConversationState) -> None:
    """Set the totals of a state, which is at its position already, to those in a header."""
    if not any(name in header for name in TOTALS):
        state.has_counted_all = state.seq == 0
        return
    state.total_items, state.talked_for = integer(header, "total_items"), number(header, "talked_for")
    is_of_here = integer(header, "counted_at") == state.seq
    state.has_counted_all = typed(header, "counted_all", bool) and is_of_here
