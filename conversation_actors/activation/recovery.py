"""From what is stored to the state it stands for."""

from conversation_actors.codec import decode_entry, decode_snapshot
from conversation_actors.errors import CorruptStateError
from conversation_actors.state import ConversationState, Entry, Limits
from conversation_actors.store import Recovered, Stored
from conversation_actors.store.keys import Keys


def rebuild(recovered: Recovered, limits: Limits) -> tuple[ConversationState, int]:
    """Return the state that is stored, and the number of journal entries that were replayed on the snapshot.

    Raises `CorruptStateError` naming the key and the byte, or `IncompatibleVersionError`.
    """
    return restate(recovered.stored, limits)


def restate(stored: Stored, limits: Limits) -> tuple[ConversationState, int]:
    """Rebuild as `rebuild` does, for whoever only reads."""
    keys = Keys(stored.tenant).conversation(stored.conversation_id)
    if stored.snapshot is None:
        state = ConversationState(limits, seq=stored.snapshot_seq)
    else:
        try:
            state = decode_snapshot(stored.snapshot, limits)
        except CorruptStateError as error:
            raise error.at(keys.snapshot) from error
    state.life = stored.life
    start = state.seq
    first = stored.seq - len(stored.journal) + 1
    for index, data in enumerate(stored.journal):
        key = f"{keys.journal}[{index}]"
        try:
            entry = decode_entry(data)  # also what the snapshot has already: watchers will read it
            _check_seq(entry, first + index)
            if entry.seq > start:
                state.apply(entry)
        except CorruptStateError as error:
            raise error.at(key) from error
        except ValueError as error:
            message = f"{key}: {error}"
            raise CorruptStateError(message, key=key, position=0) from error
    if state.seq != stored.seq:
        message = f"{keys.snapshot}: recovered to seq {state.seq}; {stored.seq} was acknowledged"
        raise CorruptStateError(message, key=keys.snapshot, position=0)
    return state, state.seq - start


def _check_seq(entry: Entry, expected: int) -> None:
    if entry.seq != expected:
        message = f"holds entry {entry.seq} where {expected} belongs"
        raise ValueError(message)
