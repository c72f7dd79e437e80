"""Large pictures are in the archive, and messages refer to them; with its database away, all is as without one."""

import random
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import select, update

from conversation_actors import ConversationClient, ConversationHandle, Message, Settings
from conversation_actors.archive.database import Database
from conversation_actors.archive.tables import pictures
from conversation_actors.archive.writer import Writer
from conversation_actors.errors import (
    ArchiveUnavailableError,
    ConflictError,
    CorruptStateError,
    InvalidInputError,
    ItemTooLargeError,
)
from conversation_actors.items import Item
from conversation_actors.pictures import Picture, references_in
from conversation_actors.settings import ArchiveSettings
from conversation_actors.store import forget_memory
from tests.support.servers import free_port

NAME = "pictures"
LEAST = 4096
NOISE = random.Random(19)
LARGE = Picture("image/jpeg", NOISE.randbytes(5000))
OTHER = Picture("image/jpeg", NOISE.randbytes(5001))
THIRD = Picture("image/jpeg", NOISE.randbytes(5002))
SMALL = Picture("image/png", NOISE.randbytes(900))


def settings_of(url: str | None) -> Settings:
    """Return settings with an archive at `url`."""
    archive = ArchiveSettings(
        url=None if url is None else SecretStr(url), picture_bytes=LEAST, timeout=timedelta(seconds=20)
    )
    return Settings(archive=archive)


Connect = Callable[..., Awaitable[ConversationClient]]


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    """Make clients of one store in memory, each with its settings."""
    clients: list[ConversationClient] = []

    async def make(url: str | None) -> ConversationClient:
        client = ConversationClient.local(settings_of(url), name=NAME)
        clients.append(client)
        return await client.__aenter__()

    yield make
    for client in clients:
        await client.aclose()
    forget_memory(NAME)


def shown(*shown: Picture, item_id: str = "m1") -> Message:
    """Return a message with words and pictures."""
    parts: list[str | dict[str, Any]] = ["Look:"]
    parts += [{"type": "image_content", "image": picture.address} for picture in shown]
    return Message(id=item_id, role="user", content=parts, created_at=1.0)


def images(item: Item) -> list[str]:
    """Return the addresses of an item's pictures."""
    return [part["image"] for part in item.to_dict()["content"] if isinstance(part, dict)]


async def kept(database: Database) -> set[tuple[str, str]]:
    """Return the conversations and digests of all pictures in the archive."""
    async with database.reading("looking") as connection:
        rows = await connection.execute(select(pictures.c.conversation_id, pictures.c.digest))
        return {(name, digest) for name, digest in rows}


async def test_large_picture_is_in_the_archive_and_comes_back(
    database_url: str, database: Database, connect: Connect
) -> None:
    """The message refers to it, in the history of every process; small ones stay where they are."""
    client = await connect(database_url)
    conversation = await client.open("c")
    given = shown(LARGE, SMALL, LARGE)
    await conversation.append(given)
    (item,) = conversation.items
    assert images(item) == [LARGE.reference.address, SMALL.address, LARGE.reference.address]
    assert await kept(database) == {("c", LARGE.reference.digest)}
    other = await (await connect(database_url)).open("c")
    assert images(other.items[0]) == images(item)
    (whole,) = await other.with_pictures()
    assert whole.to_stored() == given.to_stored()
    assert await other.picture(images(item)[0]) == LARGE.data
    assert await other.picture(images(item)[1]) == SMALL.data
    page = await other.history()
    assert [one.to_stored() for one in page.items] == [given.to_stored()]


async def test_picture_that_no_message_has_room_for_fits(database_url: str, connect: Connect) -> None:
    """Its reference counts, and not its size: without an archive it is refused."""
    picture = Picture("image/jpeg", NOISE.randbytes(300 << 10))
    conversation = await (await connect(database_url)).open("c")
    await conversation.append(shown(picture))
    assert len(conversation.items[0].to_stored().data) < 500
    assert images((await conversation.with_pictures())[0]) == [picture.address]
    without = await (await connect(None)).open("other")
    with pytest.raises(ItemTooLargeError):
        await without.append(shown(picture))


async def test_recorded_message_is_given_its_reference_before(
    database_url: str, database: Database, connect: Connect
) -> None:
    """`record` waits for nothing, so its caller asks the archive first."""
    conversation = await (await connect(database_url)).open("c")
    assert conversation.takes_picture(LARGE.address)
    assert not conversation.takes_picture(SMALL.address)
    assert await conversation.keep_picture(SMALL.address) == SMALL.address
    image = await conversation.keep_picture(LARGE.address)
    conversation.record(Message(role="user", content=[{"type": "image_content", "image": image}]))
    await conversation.flush()
    assert images(conversation.items[0]) == [LARGE.reference.address]
    assert await conversation.find_pictures([image, SMALL.address]) == {image: LARGE.address}
    assert await kept(database) == {("c", LARGE.reference.digest)}


async def test_another_conversation_cannot_name_the_picture(database_url: str, connect: Connect) -> None:
    """Whoever guesses a reference sees nothing: a picture belongs to one conversation."""
    client = await connect(database_url)
    await (await client.open("c")).append(shown(LARGE))
    other = await client.open("other")
    assert await other.picture(LARGE.reference.address) is None
    await other.append(Message(role="user", content=[{"type": "image_content", "image": LARGE.reference.address}]))
    assert images((await other.with_pictures())[0]) == [LARGE.reference.address]
    with pytest.raises(InvalidInputError, match="address"):
        await other.picture("https://example.org/lamp.jpg")


async def test_without_an_archive_all_is_as_it_was(connect: Connect) -> None:
    """The picture is in its message."""
    conversation = await (await connect(None)).open("c")
    given = shown(LARGE)
    await conversation.append(given)
    assert conversation.items[0].to_stored() == given.to_stored()
    assert not conversation.takes_picture(LARGE.address)
    assert await conversation.keep_picture(LARGE.address) == LARGE.address
    assert await conversation.with_pictures() == conversation.items


async def test_database_that_is_away_leaves_the_picture_in_its_message(
    database_url: str, database: Database, connect: Connect
) -> None:
    """Counted, and not waited for again at once; a repeat under the same `request_id` is still one."""
    nowhere = f"postgresql+psycopg://nobody@127.0.0.1:{free_port()}/nothing"
    conversation = await (await connect(nowhere)).open("c")
    first = await conversation.append(shown(LARGE), request_id="turn-1")
    assert images(conversation.items[0]) == [LARGE.address]
    assert await conversation.keep_picture(LARGE.address) == LARGE.address
    assert conversation.failures["pictures"] == 1
    await conversation.append(
        Message(role="user", content=[{"type": "image_content", "image": LARGE.reference.address}])
    )
    assert await conversation.with_pictures() == conversation.items
    with pytest.raises(ArchiveUnavailableError):
        await conversation.picture(LARGE.reference.address)
    again = await (await connect(database_url)).open("c")
    assert await again.append(shown(LARGE), request_id="turn-1") == first
    assert images(again.items[0]) == [LARGE.address]
    assert await kept(database) == {("c", LARGE.reference.digest)}


async def test_digest_of_a_request_is_that_of_what_was_given(database_url: str, connect: Connect) -> None:
    """Another picture under the same `request_id` is another request, whether the archive has either or not."""
    conversation = await (await connect(database_url)).open("c")
    first = await conversation.append(shown(LARGE), request_id="turn-1")
    assert await conversation.append(shown(LARGE), request_id="turn-1") == first
    with pytest.raises(ConflictError):
        await conversation.append(shown(Picture("image/jpeg", LARGE.data + b"x")), request_id="turn-1")


async def test_damaged_data_are_told_by_table_and_digest(
    database_url: str, database: Database, connect: Connect
) -> None:
    """They are shown to nobody: the reference stays in the message."""
    conversation = await (await connect(database_url)).open("c")
    await conversation.append(shown(LARGE))
    async with database.writing("damaging") as connection:
        await connection.execute(update(pictures).values(data=LARGE.data[:-1]))
    with pytest.raises(CorruptStateError, match="archive_pictures") as error:
        await conversation.picture(LARGE.reference.address)
    assert LARGE.reference.digest in error.value.key
    assert images((await conversation.with_pictures())[0]) == [LARGE.reference.address]


async def archive(client: ConversationClient, database: Database, conversation_id: str = "c") -> None:
    """Do what an archiver does, once: everything that waits is archived."""
    assert client._store is not None
    backlog = client._store.backlog()
    batch = await backlog.take(conversation_id, archiver="a", ttl=timedelta(seconds=9), most_bytes=1 << 20)
    assert batch is not None
    await Writer(database, "default").write(conversation_id, batch.stored)
    await backlog.settle(conversation_id, backlog=batch.backlog, through=batch.through)


Change = Callable[[ConversationHandle], Awaitable[object]]


@pytest.mark.parametrize(
    ("is_archived", "change"),
    [
        (True, lambda conversation: conversation.remove("m1", "m2")),
        (False, lambda conversation: conversation.clear_history()),
        (
            True,
            lambda conversation: conversation.append(
                Message(id="m1", role="user", content="No picture."), shown(OTHER, item_id="m2")
            ),
        ),
    ],
    ids=["removed", "cleared", "replaced"],
)
async def test_picture_goes_with_the_last_message_that_names_it(
    database_url: str, database: Database, connect: Connect, change: Change, *, is_archived: bool
) -> None:
    """When nothing is to be left of the message: not before, and not that of another one."""
    client = await connect(database_url)
    conversation = await client.open("c")
    await conversation.append(shown(LARGE), shown(LARGE, item_id="m2"), shown(OTHER, item_id="m3"))
    await (await client.open("another")).append(shown(LARGE))
    if is_archived:
        await archive(client, database)
    await conversation.append(shown(LARGE, item_id="m1"), shown(OTHER, item_id="m4"))
    await conversation.remove("m1")
    await archive(client, database)
    assert ("c", LARGE.reference.digest) in await kept(database)
    await change(conversation)
    await conversation.remove()
    await conversation.append(shown(OTHER, item_id="m5"))
    await archive(client, database)
    assert await kept(database) == {("c", OTHER.reference.digest), ("another", LARGE.reference.digest)}
    assert images((await conversation.with_pictures())[-1]) == [OTHER.address]


async def test_picture_that_is_shown_again_stays(database_url: str, database: Database, connect: Connect) -> None:
    """Also while the archive does not have the message yet that names it now."""
    client = await connect(database_url)
    conversation = await client.open("c")
    await conversation.append(shown(LARGE))
    await conversation.remove("m1")
    assert client._store is not None
    backlog = client._store.backlog()
    earlier = (await backlog.peek("c")).stored
    await conversation.append(shown(LARGE, item_id="m2"))
    await Writer(database, "default").write("c", earlier)
    assert images((await conversation.with_pictures())[0]) == [LARGE.address]


@pytest.mark.parametrize("is_told_by", ["the client", "the archiver"])
async def test_pictures_go_with_their_conversation(
    database_url: str, database: Database, connect: Connect, is_told_by: str
) -> None:
    """Whoever of client and archiver gets to it first; those of its next life stay."""
    client = await connect(database_url)
    conversation = await client.open("c")
    await conversation.append(shown(LARGE))
    await archive(client, database)
    await conversation.append(shown(OTHER, item_id="m2"))
    if is_told_by == "the client":
        await client.delete("c")
        assert await kept(database) == set()
    else:
        await conversation.passivate()
        await conversation.aclose()
        assert client._store is not None
        await client._store.delete("c", ttl=timedelta(days=1))
    again = await client.open("c")
    await again.append(shown(LARGE) if is_told_by == "the client" else shown(THIRD))
    (digest,) = references_in(again.items).values()
    await archive(client, database)
    assert await kept(database) == {("c", digest.digest)}


@pytest.mark.parametrize("is_known", [True, False])
async def test_no_picture_of_what_was_deleted_is_left_however_far_the_archive_is_behind(
    database_url: str, database: Database, connect: Connect, *, is_known: bool
) -> None:
    """The archive has the first entry, or none, and never learns of those that the deletion took the place of."""
    client = await connect(database_url)
    conversation = await client.open("c")
    if is_known:
        await conversation.append(shown(LARGE))
        await archive(client, database)
    await conversation.append(Message(id="m2", role="user", content="Look at this:"))
    await conversation.append(shown(OTHER, item_id="m3"))
    await conversation.passivate()
    await conversation.aclose()
    assert client._store is not None
    await client._store.delete("c", ttl=timedelta(days=1))
    again = await client.open("c")
    await again.append(shown(THIRD))
    await archive(client, database)
    assert await kept(database) == {("c", THIRD.reference.digest)}
