"""Store and cluster, at the start of whatever uses them."""

import logging

from conversation_actors.errors import StoreUnavailableError
from conversation_actors.settings import Settings
from conversation_actors.store import Store, open_store

log = logging.getLogger(__name__)


async def open_checked_store(settings: Settings) -> Store:
    """The store of the settings. `StoreMisconfiguredError` where it cannot do what they ask for; away is no error."""
    store = open_store(settings)
    try:
        await store.check()
    except StoreUnavailableError as error:
        log.warning("Redis does not answer yet", extra={"reason": str(error)})
    except BaseException:
        await store.aclose()
        raise
    return store


async def check_cluster(settings: Settings) -> None:
    """Raise `ClusterUnavailableError` unless Ray's control plane can be reached. Joins nothing."""
    from conversation_actors.runtime import check  # noqa: PLC0415  # Ray takes most of a second to import

    await check(settings)
