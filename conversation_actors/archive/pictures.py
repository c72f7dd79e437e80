"""Pictures that items name by their digests: which of them nobody names any more."""

import re
from collections.abc import Collection, Sequence

from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncConnection

from conversation_actors.archive.lives import Life
from conversation_actors.archive.tables import items, lives, pictures

_DIGEST = re.compile(rb"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")


def named_in(data: bytes) -> frozenset[str]:
    """Return whatever in an item's line may be the digest of a picture."""
    return frozenset(found.decode() for found in _DIGEST.findall(data))


async def drop_unused(connection: AsyncConnection, life_id: int, named: Collection[str], *, before: float) -> None:
    """Delete those of these pictures that were kept `before`, and that no item of the conversation names any more.

    One that was kept later is about to be named again, by an item that is not archived yet.
    """
    if not named:
        return
    where = select(lives.c.tenant, lives.c.conversation_id).where(lives.c.id == life_id)
    tenant, conversation_id = (await connection.execute(where)).one()
    mine = (pictures.c.tenant == tenant, pictures.c.conversation_id == conversation_id)
    kept = select(pictures.c.digest).where(*mine, pictures.c.digest.in_(named), pictures.c.kept_at < before)
    digests = set((await connection.execute(kept)).scalars())
    if not digests:
        return
    of_conversation = select(lives.c.id).where(lives.c.tenant == tenant, lives.c.conversation_id == conversation_id)
    for data in (await connection.execute(select(items.c.data).where(items.c.life_id.in_(of_conversation)))).scalars():
        digests -= named_in(data)
    await connection.execute(delete(pictures).where(*mine, pictures.c.digest.in_(digests)))


async def drop_of_lives(
    connection: AsyncConnection, tenant: str, conversation_id: str, deleted: Sequence[Life], *, at: float | None
) -> None:
    """Delete the pictures of lives that are about to be deleted: those that their items name, and all older ones.

    `at` is the time of the deletion, which may be later than all that is archived; None if it is not known. Pictures of
    a later life stay: they may be kept before the first item of that life is archived.
    """
    if not deleted:
        return
    mine = (pictures.c.tenant == tenant, pictures.c.conversation_id == conversation_id)
    kept = (await connection.execute(select(pictures.c.digest, pictures.c.kept_at).where(*mine))).all()
    if not kept:
        return
    last = max(at or 0.0, *(life.active_at for life in deleted))
    named: set[str] = set()
    here = select(items.c.data).where(items.c.life_id.in_([life.id for life in deleted]))
    for data in (await connection.execute(here)).scalars():
        named |= named_in(data)
    gone = [digest for digest, kept_at in kept if digest in named or kept_at <= last]
    await connection.execute(delete(pictures).where(*mine, pictures.c.digest.in_(gone)))


async def drop_all(connection: AsyncConnection, tenant: str, conversations: Collection[str]) -> None:
    """Delete all pictures of conversations."""
    if conversations:
        mine = (pictures.c.tenant == tenant, pictures.c.conversation_id.in_(conversations))
        await connection.execute(delete(pictures).where(*mine))
