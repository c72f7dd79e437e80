"""How far a list is imported. That is told by the archive itself, which has all of it or none of it.

The life of an imported list has a name that is made of the list's key, and the items have names that are made of their
elements. So there is no other note that could contradict the archive: an import that is begun again reads there what it
did last.
"""

from collections import deque
from dataclasses import dataclass, field
from hashlib import sha256

from conversation_actors.archive.copying import Chosen, Copies
from conversation_actors.archive.rows import ENTRY, LIFE
from conversation_actors.codec import decode_entry
from conversation_actors.state import ConversationState, ItemsAppended, Limits
from conversation_actors.transfer.list_elements import digest_in
from conversation_actors.transfer.list_positions import REMEMBERED

OWNER = "import-from-redis-lists"
_ENTRIES = Chosen(kinds=frozenset({ENTRY}), only_latest=True)


def life_of(key: str) -> str:
    """Return the name of the life that a list's conversation has."""
    return sha256(f"{OWNER}\n{key}".encode()).hexdigest()[:32]


@dataclass(slots=True)
class Cursor:
    """How far one list is imported: `state` is the conversation's, and `digests` are those of its latest elements.

    `index` is where the list's new elements began when it was last read.
    """

    state: ConversationState
    elements: int = 0
    digests: deque[str] = field(default_factory=lambda: deque(maxlen=REMEMBERED))
    index: int = 0

    def note(self, item_id: str) -> None:
        """Count an element's item."""
        if (digest := digest_in(item_id)) is not None:
            self.elements += 1
            self.digests.append(digest)


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """Why a list cannot be imported, or not any further. `is_conflict` if it never could."""

    reason: str
    is_conflict: bool


async def read_cursor(copies: Copies, conversation_id: str, key: str, limits: Limits) -> Cursor | Elsewhere:
    """Return how far the archive has a list, or why the conversation goes on without it."""
    cursor, life = Cursor(ConversationState(limits)), life_of(key)
    cursor.state.life = life
    async for row in copies.rows(conversation_id, _ENTRIES):
        if row.kind == LIFE and row.values["life"] != life:
            return Elsewhere(f"{conversation_id!r} is in the archive already, from elsewhere", is_conflict=True)
        if row.kind == LIFE and row.values["owner"] != OWNER:
            return Elsewhere(f"{conversation_id!r} has been opened here since it was imported", is_conflict=False)
        if row.kind != ENTRY:
            continue
        entry = decode_entry(row.values["data"])
        cursor.state.apply(entry)
        if isinstance(entry.event, ItemsAppended):
            for item in entry.event.items:
                cursor.note(item.id)
    if not cursor.state.seq and life in await copies.deleted_lives(conversation_id):
        return Elsewhere(f"{conversation_id!r} was deleted in the archive", is_conflict=True)
    return cursor
