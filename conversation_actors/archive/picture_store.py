"""Pictures in the archive (`archive_pictures`): kept by clients before a message names them.

A picture belongs to its conversation's id, and not to a life: it is kept before anybody knows of which entry.
"""

from collections.abc import Collection, Sequence
from hashlib import sha256

from sqlalchemy import ColumnElement, Dialect, Insert, func, select
from sqlalchemy.dialects import postgresql, sqlite

from conversation_actors.archive.database import Database
from conversation_actors.archive.tables import pictures
from conversation_actors.errors import CorruptStateError
from conversation_actors.pictures import Picture

_AT_ONCE = 200
"""Digests in one statement."""


async def keep(database: Database, tenant: str, conversation_id: str, kept: Sequence[Picture], *, at: float) -> None:
    """Store pictures that a message is about to name. May be repeated: then they count as new.

    `at` is the time of the latest entry that whoever keeps them has seen, by the owners' clock. It tells them, whatever
    this computer's clock is, from those that were kept before an entry that takes messages out.
    """
    rows = {
        picture.reference.digest: {
            "tenant": tenant,
            "conversation_id": conversation_id,
            "digest": picture.reference.digest,
            "media_type": picture.media_type,
            "data": picture.data,
            "kept_at": at,
        }
        for picture in kept
    }
    async with database.writing("keeping pictures") as connection:
        statement = _upsert(connection.dialect)
        for _, row in sorted(rows.items()):  # in one order everywhere, so that two clients do not wait for each other
            await connection.execute(statement, row)


async def fetch(database: Database, tenant: str, conversation_id: str, digests: Collection[str]) -> dict[str, bytes]:
    """Return the data of those pictures that are there. Raises `CorruptStateError` for data of another digest."""
    wanted, found = sorted(set(digests)), {}
    async with database.reading("reading pictures") as connection:
        for start in range(0, len(wanted), _AT_ONCE):
            some = pictures.c.digest.in_(wanted[start : start + _AT_ONCE])
            query = select(pictures.c.digest, pictures.c.data).where(*_of(tenant, conversation_id), some)
            found.update({digest: bytes(data) for digest, data in await connection.execute(query)})
    for digest, data in found.items():
        if sha256(data).hexdigest() != digest:
            key = f"archive_pictures[{tenant!r}, {conversation_id!r}, {digest}]"
            message = f"{key}: the data are not those of the digest"
            raise CorruptStateError(message, key=key, position=0)
    return found


def _of(tenant: str, conversation_id: str) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return pictures.c.tenant == tenant, pictures.c.conversation_id == conversation_id


def _upsert(dialect: Dialect) -> Insert:
    """Return the statement that stores a picture; one that is there counts as kept at the later of both times."""
    key = [pictures.c.tenant, pictures.c.conversation_id, pictures.c.digest]
    if dialect.name == "postgresql":
        insert = postgresql.insert(pictures)
        later = func.greatest(pictures.c.kept_at, insert.excluded.kept_at)
        return insert.on_conflict_do_update(index_elements=key, set_={"kept_at": later})
    other = sqlite.insert(pictures)
    return other.on_conflict_do_update(
        index_elements=key, set_={"kept_at": func.max(pictures.c.kept_at, other.excluded.kept_at)}
    )
