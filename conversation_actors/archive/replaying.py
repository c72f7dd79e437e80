"""States out of archived entries. Pure: bytes and positions come in, a state comes out."""

from collections.abc import Iterable
from dataclasses import dataclass

from conversation_actors.codec import decode_entry
from conversation_actors.errors import CorruptStateError
from conversation_actors.state import ConversationState
from conversation_actors.store.base import MAX_ANCESTORS, Ancestor

UNREADABLE = "unreadable"
"""The event under which an entry is archived that nobody could read: its bytes are kept, and change no state."""


@dataclass(frozen=True, slots=True)
class ArchivedEntry:
    """An entry as it is archived: `name` is what an error calls it, `event` the stored name of its event."""

    name: str
    seq: int
    event: str
    data: bytes


def replay(state: ConversationState, entries: Iterable[ArchivedEntry]) -> None:
    """Apply entries in order, from the one after the state's position on.

    What is missing between two of them is left out, and the state tells that it has not counted everything. Whether
    it may be missing, the code that reads the entries knows. Raises `CorruptStateError` that names the entry, and
    `IncompatibleVersionError` for an event of a newer version.
    """
    for archived in entries:
        if archived.seq != state.seq + 1:
            _skip(state, through=archived.seq - 1)
        if archived.event == UNREADABLE:
            _skip(state, through=archived.seq)
            continue
        try:
            entry = decode_entry(archived.data)
            state.apply(entry)
        except CorruptStateError as error:
            raise error.at(archived.name) from error
        except ValueError as error:
            message = f"{archived.name}: {error}"
            raise CorruptStateError(message, key=archived.name, position=0) from error


def _skip(state: ConversationState, *, through: int) -> None:
    state.seq = through
    state.has_counted_all = False


def succeeded(lineage: tuple[Ancestor, ...], last: Ancestor) -> tuple[Ancestor, ...]:
    """Return the lineage of a claim that took over from the `last` one, at that one's position.

    If the store had lost entries before, `last` ends where the history goes on: no claim before it reaches further.
    """
    known = [one._replace(seq=min(one.seq, last.seq)) if one.life == last.life else one for one in lineage]
    return (*known, last)[-MAX_ANCESTORS:]
