"""Pictures in the archive (`archive_pictures`): kept by clients before a message names them, and gone with the message.

A picture belongs to its conversation's id, and not to a life: it is kept before anybody knows of which entry.
"""

import time
from collections.abc import Collection, Sequence
from hashlib import sha256

from sqlalchemy import ColumnElement, Dialect, Insert, delete, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from conversation_actors.archive.database import Database
from conversation_actors.archive.tables import items, lives, pictures
from conversation_actors.errors import CorruptStateError
from conversation_actors.pictures import Picture, digests_in

_AT_ONCE = 200
"""Digests in one statement."""
_ON_ITS_WAY = 3600.0
"""Seconds for which a picture is left alone that no archived item names: its message may be on its way."""


async def keep(database: Database, tenant: str, conversation_id: str, kept: Sequence[Picture]) -> None:
    """Store pictures that a message is about to name. May be repeated: then they count as new."""
    rows = {
        picture.reference.digest: {
            "tenant": tenant,
            "conversation_id": conversation_id,
            "digest": picture.reference.digest,
            "media_type": picture.media_type,
            "data": picture.data,
            "kept_at": time.time(),
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


async def forget(
    connection: AsyncConnection, tenant: str, conversation_id: str, *, named: Collection[str], before: float
) -> int:
    """Forget the pictures that were `named` by what is forgotten, and that no item names any more; return how many.

    To be called in the transaction that has taken the items out. A picture that was kept anew after `before`, when
    they were taken out of the conversation, stays: another message is about to name it. Pictures that were never named
    go too, an hour after they were kept.
    """
    query = select(pictures.c.digest, pictures.c.kept_at).where(*_of(tenant, conversation_id))
    kept = (await connection.execute(query)).all()
    doomed = {digest for digest, at in kept if at < (before if digest in named else before - _ON_ITS_WAY)}
    if doomed:
        doomed -= await _named(connection, tenant, conversation_id)
    return await _delete(connection, tenant, conversation_id, doomed)


async def forget_all(connection: AsyncConnection, tenant: str, conversation_id: str) -> int:
    """Forget all pictures of a conversation that was deleted; return how many."""
    done = await connection.execute(delete(pictures).where(*_of(tenant, conversation_id)))
    return done.rowcount


async def forget_unowned(connection: AsyncConnection, tenant: str, conversation_ids: Collection[str]) -> int:
    """Forget all pictures of those of the conversations that have no life in the archive any more; return how many."""
    gone = 0
    for conversation_id in conversation_ids:
        query = select(lives.c.id).where(
            lives.c.tenant == tenant, lives.c.conversation_id == conversation_id, lives.c.deleted_at.is_(None)
        )
        if (await connection.execute(query.limit(1))).first() is None:
            gone += await forget_all(connection, tenant, conversation_id)
    return gone


async def _named(connection: AsyncConnection, tenant: str, conversation_id: str) -> set[str]:
    """Return the digests that archived items of all lives of a conversation name."""
    query = (
        select(items.c.data)
        .join(lives, lives.c.id == items.c.life_id)
        .where(lives.c.tenant == tenant, lives.c.conversation_id == conversation_id, items.c.type == "message")
    )
    found: set[str] = set()
    for (data,) in await connection.execute(query):
        found |= digests_in(bytes(data))
    return found


async def _delete(connection: AsyncConnection, tenant: str, conversation_id: str, digests: Collection[str]) -> int:
    gone, listed = 0, sorted(digests)
    for start in range(0, len(listed), _AT_ONCE):
        some = pictures.c.digest.in_(listed[start : start + _AT_ONCE])
        gone += (await connection.execute(delete(pictures).where(*_of(tenant, conversation_id), some))).rowcount
    return gone


def _of(tenant: str, conversation_id: str) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return pictures.c.tenant == tenant, pictures.c.conversation_id == conversation_id


def _upsert(dialect: Dialect) -> Insert:
    """Return the statement that stores a picture; one that is there counts as kept now."""
    key = [pictures.c.tenant, pictures.c.conversation_id, pictures.c.digest]
    if dialect.name == "postgresql":
        insert = postgresql.insert(pictures)
        return insert.on_conflict_do_update(index_elements=key, set_={"kept_at": insert.excluded.kept_at})
    other = sqlite.insert(pictures)
    return other.on_conflict_do_update(index_elements=key, set_={"kept_at": other.excluded.kept_at})
