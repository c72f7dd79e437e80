"""What a driver does with an archive: clients that have one, and a look into its database."""

import time

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from benchmarks.driver import Session
from conversation_actors import ArchiveSettings, ConversationClient
from conversation_actors.archive.tables import lives
from conversation_actors.settings import Direct

ARCHIVING = "client of the archive"
_ENGINE = "engine of the archive"


async def client_of(session: Session, url: str) -> ConversationClient:
    """Return the client whose owners archive. The first use makes it and joins the cluster."""
    if ARCHIVING not in session.kept:
        settings = session.settings(200, Direct.AUTO).model_copy(
            update={"archive": ArchiveSettings.model_validate({"url": url})}
        )
        made = await session.stack.enter_async_context(ConversationClient(settings))
        await made.join_cluster()
        session.kept[ARCHIVING] = made
    client: ConversationClient = session.kept[ARCHIVING]
    return client


async def archived(session: Session, url: str) -> dict[str, int]:
    """Return the last position of each conversation that the database has committed."""
    if _ENGINE not in session.kept:
        session.kept[_ENGINE] = create_async_engine(url)
    engine: AsyncEngine = session.kept[_ENGINE]
    async with engine.connect() as connection:
        rows = await connection.execute(select(lives.c.conversation_id, lives.c.seq))
        return {row.conversation_id: row.seq for row in rows}


async def reached(session: Session, url: str, conversation_id: str, seq: int) -> float:
    """Return the time, on the monotonic clock, when a position is archived; raise `TimeoutError` after a minute."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if (await archived(session, url)).get(conversation_id, 0) >= seq:
            return time.monotonic()
    raise TimeoutError(conversation_id)
