"""Store and cluster, at the start of whatever uses them."""

import logging

from conversation_actors.errors import StoreMisconfiguredError, StoreUnavailableError
from conversation_actors.settings import Settings
from conversation_actors.store import Store, open_store

logger = logging.getLogger(__name__)


async def open_checked_store(settings: Settings) -> Store:
    """Open the store of the settings, which may be away.

    Raises `StoreMisconfiguredError` if it cannot do what they ask for.
    """
    store, objection = await open_readable_store(settings)
    if objection is not None:
        await store.aclose()
        raise objection
    return store


async def open_readable_store(settings: Settings) -> tuple[Store, StoreMisconfiguredError | None]:
    """Open the store of the settings, also for a user who may only read; then return what a writer is to be told."""
    store = open_store(settings)
    try:
        await _check(store)
    except StoreMisconfiguredError as error:
        if error.lacks_right:
            return store, error
        await store.aclose()
        raise
    except BaseException:
        await store.aclose()
        raise
    return store, None


async def _check(store: Store) -> None:
    try:
        await store.check()
    except StoreUnavailableError as error:
        logger.warning("Redis does not answer yet", extra={"reason": str(error)})


async def check_cluster(settings: Settings) -> None:
    """Raise `ClusterUnavailableError` unless Ray's control plane can be reached. Joins nothing.

    With the Redis URL ``memory://`` there is none, and none is needed.
    """
    if settings.is_in_memory:
        return
    from conversation_actors.runtime import check  # noqa: PLC0415  # Ray takes most of a second to import

    await check(settings)
