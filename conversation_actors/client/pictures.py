"""Large pictures of one conversation: into the archive before a message is sent, and out of it when it is shown.

Without an archive, and while its database is away, a picture stays in its message as it was given.
"""

import asyncio
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from importlib import import_module

from conversation_actors.client.archive import ClientArchive
from conversation_actors.errors import ConversationError, InvalidInputError
from conversation_actors.failures import Failures
from conversation_actors.items import Item
from conversation_actors.pictures import (
    Picture,
    Reference,
    addresses_in,
    is_large,
    picture_of,
    reference_of,
    references_in,
    with_addresses,
)
from conversation_actors.settings import Settings

_FAILED_SECONDS = 5.0
"""For how long pictures stay in their messages after the archive has failed to take one: nobody waits for it again."""
_LONG = 256 << 10
"""Characters from which on pictures are decoded and digested beside the event loop."""


class ConversationPictures:
    """The pictures of one conversation in a client's archive. Belongs to one event loop."""

    def __init__(
        self,
        conversation_id: str,
        archive: ClientArchive | None,
        settings: Settings,
        failures: Failures,
        *,
        seen_at: Callable[[], float],
    ) -> None:
        """Ask nobody yet. What the archive could not take is counted in `failures`, as ``pictures``.

        `seen_at` tells the time of the latest entry that is known here; 0 if none is.
        """
        self._seen_at = seen_at
        self._id, self._tenant, self._failures = conversation_id, settings.tenant, failures
        self._archive = archive if archive is not None and archive.is_configured else None
        self._least = settings.archive.picture_bytes
        self._failed_until = float("-inf")

    def takes(self, address: object) -> bool:
        """Tell whether a picture of this address is one for the archive."""
        return self._archive is not None and is_large(address, self._least)

    async def keep(self, addresses: Collection[str]) -> dict[str, str]:
        """Store those pictures that are for the archive; return the addresses that stand for them, by their own.

        If the archive does not take them in time, the result is empty. Raises nothing for the archive's sake.
        """
        chosen = [address for address in dict.fromkeys(addresses) if self.takes(address)]
        if not chosen or time.monotonic() < self._failed_until:
            return {}
        pictures = await _pictures_of(chosen)
        if pictures:
            try:
                await self._store(list(pictures.values()))
            except ConversationError as error:
                self._failed_until = time.monotonic() + _FAILED_SECONDS
                self._failures.note("pictures", error)
                return {}
        return {address: picture.reference.address for address, picture in pictures.items()}

    async def take_out(self, items: Sequence[Item]) -> Sequence[Item]:
        """Return items with references in the place of large pictures; the same sequence if nothing is taken out."""
        if self._archive is None or not any(self.takes(address) for address in _addresses(items)):
            return items
        kept = await self.keep(list(addresses_in(items)))
        return [with_addresses(item, kept) for item in items] if kept else items

    async def find(self, addresses: Iterable[str]) -> dict[str, str]:
        """Return the data of pictures that references name, as addresses, by the references' own; of those that exist.

        Raises `ArchiveUnavailableError`, `ArchiveMisconfiguredError`, and `CorruptStateError` for damaged data.
        """
        wanted = {address: found for address in addresses if (found := reference_of(address)) is not None}
        return {address: picture.address for address, picture in (await self._fetch(wanted)).items()}

    async def bring_back(self, items: Sequence[Item]) -> tuple[Item, ...]:
        """Return items with their pictures; one that cannot be had stays a reference, which `failures` count."""
        wanted = references_in(items)
        if not wanted:
            return tuple(items)
        try:
            found = await self.find(wanted)
        except ConversationError as error:
            self._failures.note("pictures", error)
            return tuple(items)
        return tuple(with_addresses(item, found) for item in items)

    async def data(self, address: str) -> bytes | None:
        """Return the data behind an address, of either kind; None if the archive has none (any more)."""
        picture = picture_of(address)
        if picture is not None:
            return picture.data
        reference = reference_of(address)
        if reference is None:
            message = "address: expected data:…;base64,… or archive:…;sha256,…"
            raise InvalidInputError(message, field="address")
        found = (await self._fetch({address: reference})).get(address)
        return None if found is None else found.data

    async def _fetch(self, wanted: Mapping[str, Reference]) -> dict[str, Picture]:
        if not wanted or self._archive is None:
            return {}
        digests = {reference.digest for reference in wanted.values()}
        database = await self._archive.database()
        store = import_module("conversation_actors.archive.picture_store")  # imported with the database
        found: Mapping[str, bytes] = await store.fetch(database, self._tenant, self._id, digests)
        return {
            address: Picture(reference.media_type, found[reference.digest])
            for address, reference in wanted.items()
            if reference.digest in found
        }

    async def _store(self, pictures: Sequence[Picture]) -> None:
        assert self._archive is not None
        # No time-out here: the database ends its waits itself, and cancelling a statement takes psycopg seconds more.
        database = await self._archive.database()
        store = import_module("conversation_actors.archive.picture_store")  # imported with the database
        # without entries, no entry can take anything out that this computer's clock would be held against
        await store.keep(database, self._tenant, self._id, pictures, at=self._seen_at() or time.time())


def _addresses(items: Sequence[Item]) -> Iterable[str]:
    """Return the addresses of pictures in items, of which a caller may have given anything."""
    return addresses_in(item for item in items if isinstance(item, Item))  # type: ignore[redundant-expr]


async def _pictures_of(addresses: Sequence[str]) -> dict[str, Picture]:
    """Return the pictures in addresses of data; without those that would not come back as the very same text."""

    def read() -> dict[str, Picture]:
        found = {address: picture_of(address) for address in addresses}
        return {address: picture for address, picture in found.items() if picture is not None}

    is_long = sum(map(len, addresses)) >= _LONG
    return await asyncio.to_thread(read) if is_long else read()
