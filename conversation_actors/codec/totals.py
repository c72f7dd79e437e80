"""What a conversation has counted, as fields of a snapshot's header; the same schema was written without them."""

from typing import Any

from conversation_actors.codec.fields import Fields, integer, number, typed
from conversation_actors.state import ConversationState

TOTALS = ("total_items", "talked_for", "counted_all", "counted_at")
"""``counted_at`` is the position that was counted up to: a version that does not count copies all four, and goes on."""


def totals_fields(state: ConversationState) -> dict[str, Any]:
    """Return the totals as stored; none of a state in which nothing was counted."""
    has_counted = bool(state.total_items or state.talked_for or (state.has_counted_all and state.seq))
    counted = (state.total_items, state.talked_for, state.has_counted_all, state.seq)
    return dict(zip(TOTALS, counted, strict=True)) if has_counted else {}


def read_totals(header: Fields, state: ConversationState) -> None:
    """Give a state, which is at its position already, what was counted of it."""
    if not any(name in header for name in TOTALS):
        state.has_counted_all = state.seq == 0
        return
    state.total_items, state.talked_for = integer(header, "total_items"), number(header, "talked_for")
    is_of_here = integer(header, "counted_at") == state.seq
    state.has_counted_all = typed(header, "counted_all", bool) and is_of_here
