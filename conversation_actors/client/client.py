"""The way in: one client per process, as an async context manager."""

import asyncio
import logging
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import datetime
from functools import partial
from importlib import import_module
from ssl import SSLContext
from types import TracebackType
from typing import TYPE_CHECKING, Self

from conversation_actors.client import sessions
from conversation_actors.client.archive import ClientArchive
from conversation_actors.client.backend import ClientBackend
from conversation_actors.client.copy import StoredState
from conversation_actors.client.forgetting import Forgetting
from conversation_actors.client.handle import ConversationHandle
from conversation_actors.client.history import Histories
from conversation_actors.client.late_port import LatePort
from conversation_actors.client.opening import open_readable_store
from conversation_actors.client.owner import RemoteOwner
from conversation_actors.client.reading import Reader
from conversation_actors.client.reviving import Reviver
from conversation_actors.client.sessions import SessionPage
from conversation_actors.client.views import Snapshot
from conversation_actors.errors import (
    ClusterUnavailableError,
    ConversationError,
    ConversationNotFoundError,
    InvalidInputError,
    StoreMisconfiguredError,
)
from conversation_actors.failures import Failures
from conversation_actors.line.port import DirectPort
from conversation_actors.line.tls import client_context
from conversation_actors.local import LocalOwners
from conversation_actors.port import OwnerPort
from conversation_actors.protocol import View
from conversation_actors.settings import Direct, Settings
from conversation_actors.store import Found, Store, open_replica
from conversation_actors.store.backlog import Lag
from conversation_actors.timing import TIMING, Timing
from conversation_actors.values import check_id
from conversation_actors.versions import tell_untested

if TYPE_CHECKING:
    from conversation_actors.runtime import ActorDirectory


logger = logging.getLogger(__name__)

_UNTOLD_SECONDS = 30.0
"""For how long deletions look for nobody after one that found no cluster: many of them cost no more than one."""


def _has_imported(package: str) -> bool:
    return package in sys.modules


class ConversationClient:
    """Opens, reads, lists and deletes conversations. Belongs to one event loop; share it, it is cheap to use.

    Entering asks Redis whether it can do what the settings ask for (`StoreMisconfiguredError`). It is no error if Redis
    is away at that moment: each call waits for it, as long as its time-out. It is no error either if the user of Redis
    may only read: `read` and `list` work, and the other methods tell which right is missing.

    Only `open` needs a Ray cluster. Entering begins to join the one that the settings name, and does not wait for it.
    If they name none, and this process has not imported Ray, the first `open` or `delete` looks for one.
    With the Redis URL ``memory://`` nothing needs Redis or Ray: see `local`.

    Example:
        async with ConversationClient() as client:  # RAY_ADDRESS, CONVERSATION_REDIS_URL
            conversation = await client.open("support-42")
            await conversation.append(Message(role="user", content="Hello"))
    """

    def __init__(self, settings: Settings | None = None, *, timing: Timing = TIMING) -> None:
        """Without `settings`, read them from the environment. Connects when entered. `timing` is for tests."""
        self._settings, self._timing = _checked(settings), timing
        self._handles: dict[str, ConversationHandle] = {}
        self._store: Store | None = None
        self._archive, self._backend = ClientArchive(self._settings), ClientBackend(self._settings)
        self._histories = Histories(self._archive, self._connected_store, self._settings, timing=timing)
        self._directory: ActorDirectory | None = None
        self._local: LocalOwners | None = None
        self._replica: Store | None = None
        self._reader: Reader | None = None

        self._objection: StoreMisconfiguredError | None = None
        self._joining: asyncio.Task[None] | None = None
        self._untold_until = float("-inf")
        self._background: asyncio.Task[None] | None = None
        self._has_left = False
        """Whether it was closed, and joins nothing any more."""
        self._is_joining: Callable[[], bool] = lambda: False
        self._failures = Failures()
        self._tls: SSLContext | None = None

    @classmethod
    def local(cls, settings: Settings | None = None, *, name: str = "", timing: Timing = TIMING) -> Self:
        """Make a client that needs neither Redis nor Ray: store and owners are in this process, and end with it.

        The short form of the Redis URL ``memory://``. Every answer goes through the same gate, bounds and errors; what
        a server or another process adds is not there: nothing outlives the process, nor is seen from another one. All
        clients of a process that have the same `name` share one store. Of the `settings`, those that name servers, and
        `durability`, do not count. Example:

            async with ConversationClient.local() as client:
                conversation = await client.open("support-42")
                await conversation.append(Message(role="user", content="Hello"))
        """
        return cls(_checked(settings).in_memory(name), timing=timing)

    @property
    def failures(self) -> Mapping[str, int]:
        """What went wrong in the background and was survived, by task.

        `pool`: no workers are started ahead of time. `line`: owners are asked by Ray's calls alone. `archive`: it could
        not be asked for a conversation that Redis does not have, and that was begun without it. `backend`: the same of
        the back end.
        """
        return self._failures.counts

    async def __aenter__(self) -> Self:
        """Connect."""
        tell_untested("pydantic", "ray", "redis")
        self._has_left = False
        self._replica = open_replica(self._settings)  # first: a wrong URL leaves nothing open
        self._store, self._objection = await open_readable_store(self._settings)
        self._reader = Reader(self._store, self._replica, self._settings, timing=self._timing)
        if self._settings.ray_address is not None or _has_imported("ray"):
            self._begin_to_join()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close."""
        await self.aclose()

    async def join_cluster(self) -> None:
        """Return when the Ray cluster is joined. `open` does this itself; call it to be ready before the first `open`.

        Raises `ClusterUnavailableError` if there is no cluster, or if it does not answer within `timeouts.connect`; the
        next call tries again. Raises `ClusterMisconfiguredError` or `IncompatibleVersionError` if no repeat helps.

        Example:
            await client.join_cluster()  # so that the first `open` does not wait for it
        """
        self._connected_store()
        joining = await self._ended_joining()
        self._connected_store()
        joining.result()

    async def _ended_joining(self) -> asyncio.Task[None]:
        """Return what has joined, or has failed to; it is begun anew if it had failed before."""
        joining = self._joining
        if joining is None or (joining.done() and not self._has_joined):
            joining = self._begin_to_join()
        await asyncio.wait({joining})  # others may wait for it too: it is not cancelled with this task
        return joining

    async def open(self, conversation_id: str, *, create: bool = True, wait: bool = True) -> ConversationHandle:
        """Get or create a conversation; return when its owner answers.

        A second `open` of an id returns the same handle. Raises `ConversationNotFoundError` if there is no such
        conversation and `create` is false, and what `join_cluster` raises if there is no Ray cluster.

        A conversation that Redis has no more comes back from the archive, if one is configured: the same life, at the
        same position, with nobody's lease. If the archive cannot be asked, `CONVERSATION_ARCHIVE_REQUIRED` decides:
        `ArchiveUnavailableError`, or a new conversation; unless `create` it is always the error.

        What the archive does not have either, nor remembers as deleted, is asked of the back end, if there is one: a
        new life begins with the messages that were last. `CONVERSATION_BACKEND_REQUIRED` decides as above, with
        `BackendUnavailableError`.

        If not `wait`, return a handle that shows what is stored, as `read` would, after one call of Redis. Its owner is
        started in the background, and the calls that need it wait for it. If it cannot be started, they raise why; the
        handle counts that as `opening` among its `failures`, and tries again. A conversation that is not stored, or
        cannot be read now, has nothing to show: then this waits for the owner all the same.

        Example:
            conversation = await client.open("support-42")
            assert await client.open("support-42") is conversation

            early = await client.open("support-42", wait=False)
            print(len(early.items), "items are here, whether or not the owner runs yet")
        """
        conversation_id = check_id(conversation_id, "conversation_id")
        await self._check_rights()
        found = await self._reviver().find(conversation_id, create=create, wait=wait)
        if (
            not wait
            and found.said is None
            and (shown := await self._open_stored(conversation_id, create=create)) is not None
        ):
            return shown
        if not create and not found.is_anywhere:
            message = f"no conversation {conversation_id!r}"
            raise ConversationNotFoundError(message)
        await self.join_cluster()
        owner = self._owner(conversation_id)
        try:
            _, view = await self._reviver().open(owner, conversation_id, create=create, found=found)
            self._connected_store()  # closed meanwhile, nobody would close the handle
        except BaseException:
            await owner.aclose()
            raise
        # Somebody else may have opened or closed it in this process meanwhile: one handle an id, for one order.
        known = self._open_handle(conversation_id)
        if known is None:
            known = self._handles[conversation_id] = self._handle(conversation_id, owner, view)
        else:
            await owner.aclose()
            await known.catch_up(view)
        return known

    async def _open_stored(self, conversation_id: str, *, create: bool) -> ConversationHandle | None:
        """Return a handle that shows what is stored; None if there is nothing to show.

        Raises `ConversationNotFoundError` if it is not stored, unless `create`.
        """
        self._connected_store()
        assert self._reader is not None
        try:
            stored = await self._reader.state(conversation_id)
        except ConversationNotFoundError:
            if not create:
                raise
            return None
        except ConversationError as error:  # an owner that runs may know more than can be read
            logger.info("what is stored cannot be shown; the owner is waited for", extra={"reason": str(error)})
            return None
        self._connected_store()  # as in `open`
        known = self._open_handle(conversation_id)
        if known is not None:
            known.show(stored)
            return known
        make = partial(self._port, conversation_id)
        port = make() if self._has_joined else LatePort(self._join_at_last, make)
        owner = RemoteOwner(port, self._settings, timing=self._timing)
        handle = self._handles[conversation_id] = self._handle(conversation_id, owner, stored)
        return handle

    def _handle(self, conversation_id: str, owner: RemoteOwner, shown: View | StoredState) -> ConversationHandle:
        return ConversationHandle(
            conversation_id,
            owner,
            shown,
            self._settings,
            histories=self._histories,
            archive=self._archive,
            timing=self._timing,
        )

    def _reviver(self) -> Reviver:
        return Reviver(self._connected_store(), self._archive, self._backend, self._settings, self._failures)

    def _open_handle(self, conversation_id: str) -> ConversationHandle | None:
        """Return the handle of this id that is in use, if there is one; drop those that were closed."""
        for closed in [name for name, handle in self._handles.items() if handle.is_closed]:
            del self._handles[closed]
        return self._handles.get(conversation_id)

    async def read(self, conversation_id: str, *, stale_ok: bool = False) -> Snapshot:
        """Read a conversation from Redis. Starts no owner, asks none, writes nothing, and needs no Ray.

        The snapshot is as fresh as `ConversationHandle.snapshot(fresh=True)`: it has all that was acknowledged before,
        and nothing that may still vanish. (In a cluster of Redis servers, under another durability than `redis`, it may
        have such things for a moment.) Reading does not prolong how long the conversation is kept.

        If `stale_ok`, the replica that `CONVERSATION_READ_URL` names is read; see `Snapshot.lag`. What the replica does
        not have, and everything while it does not answer, is read from the primary.

        A conversation that Redis has no more is read from the archive, if one is configured: as `open` would bring it
        back. Then this may raise `ArchiveUnavailableError` or `ArchiveMisconfiguredError`.

        Raises `ConversationNotFoundError`, also for a conversation whose time is up; `CorruptStateError` and
        `IncompatibleVersionError` for what cannot be read; `StoreUnavailableError` after `timeouts.command`.

        Example:
            await conversation.append(Message(role="user", content="Hello"))
            state = await client.read("support-42")
            assert [item.text for item in state.items] == ["Hello"]
        """
        conversation_id = check_id(conversation_id, "conversation_id")
        self._connected_store()
        assert self._reader is not None
        try:
            return await self._reader.read(conversation_id, stale_ok=stale_ok)
        except ConversationNotFoundError:
            return await self._histories.snapshot(conversation_id)

    async def list(self, *, participant: str | None = None) -> AsyncIterator[Found]:
        """Yield the stored conversations, or those of a `participant`; the most recently active come first.

        Example:
            await conversation.join("alice")
            found = [one.conversation_id async for one in client.list(participant="alice")]
            assert found == ["support-42"]
        """
        if participant is not None:
            participant = check_id(participant, "participant")
        async for found in self._connected_store().list(participant=participant):
            yield found

    async def delete(self, conversation_id: str) -> None:
        """Forget a conversation and stop its owner. Raises `ConversationNotFoundError` if there is none.

        The archive forgets it too: now, or if its database is away, when the archiver has caught up. One that only the
        archive has is forgotten there, and if that is away, `ArchiveUnavailableError` is raised.

        A back end is told last. `BackendUnavailableError` means that it has not said that it has forgotten the
        conversation; everything else has. Repeat the call until it returns, or says that there is none.

        Its handles raise `ConversationNotFoundError` from then on, until somebody opens it anew. Needs no Ray: an owner
        that cannot be told finds out by its next write, or within half a minute.

        Example:
            await client.delete("support-42")
            try:
                await client.open("support-42", create=False)
            except ConversationNotFoundError:
                print("it is gone")
        """
        conversation_id = check_id(conversation_id, "conversation_id")
        was_stored = await self._connected_store().delete(conversation_id, ttl=self._settings.ttl)
        await self._tell_of_deletion(conversation_id)
        forgetting = Forgetting(self._archive, self._connected_store(), self._settings.tenant)
        was_archived = await forgetting.forget(conversation_id, is_told=was_stored)
        was_known = await self._backend.forget(conversation_id, is_known=was_stored or was_archived)
        if not (was_stored or was_archived or was_known):
            message = f"no conversation {conversation_id!r}"
            raise ConversationNotFoundError(message)

    async def archive_lag(self, conversation_id: str | None = None) -> Lag:
        """Return how far the archive is behind, for one conversation or for all of the tenant. Asks Redis alone.

        Raises `ArchiveMisconfiguredError` if no archive is configured, `StoreUnavailableError` after
        `timeouts.command`.

        Example:
            await conversation.append(Message(role="user", content="Hello"))
            lag = await client.archive_lag("support-42")
            print(lag.records, "entries wait for the archive, the oldest for", lag.seconds, "s")
        """
        return await self._histories.lag(conversation_id)

    async def sessions(
        self, *, conversation_id: str | None = None, user: str | None = None, since: datetime | None = None,
        until: datetime | None = None, limit: int = 100, cursor: str | None = None,
    ) -> SessionPage:  # fmt: skip
        """Return a page of the records of calls that are over, the newest first; of the archive alone.

        Those of one conversation, of a `user` (a participant's identity), of calls that began at `since` or later and
        before `until`. There is one record of each call, a few seconds after its end.

        Raises `ArchiveMisconfiguredError` if no archive is configured, `ArchiveUnavailableError` if it does not answer,
        and `InvalidInputError`, also for a `cursor` that no page gave out.

        Example:
            page = await client.sessions(user="alice", since=datetime.now(UTC) - timedelta(days=1))
            for record in page.sessions:
                print(record.to_text())
        """
        return await sessions.page(
            self._archive, self._settings,
            conversation_id=conversation_id, user=user, since=since, until=until, limit=limit, cursor=cursor,
        )  # fmt: skip

    async def aclose(self) -> None:
        """Send what is in the handles' outboxes, and let go of everything. Idempotent.

        Example:
            client = ConversationClient()
            await client.__aenter__()  # `async with` does both
            await client.aclose()
        """
        handles, self._handles = self._handles, {}
        stores = [store for store in (self._store, self._replica) if store is not None]
        self._store = self._replica = None
        try:
            await asyncio.gather(*(handle.aclose() for handle in handles.values()), return_exceptions=True)
            await self._end_joining()
        finally:
            local, self._local = self._local, None
            if local is not None:
                await local.aclose()
            await self._archive.aclose()
            await self._backend.aclose()
            for store in stores:
                await store.aclose()

    async def _check_rights(self) -> None:
        """Raise `StoreMisconfiguredError` if the user of Redis may not write; the right may have been granted since."""
        if self._objection is not None:
            await self._connected_store().check()
            self._objection = None

    def _begin_to_join(self) -> asyncio.Task[None]:
        self._joining = asyncio.create_task(self._join())
        # A failure that nobody waits for is none: the client may be one that only reads.
        self._joining.add_done_callback(lambda joining: joining.cancelled() or joining.exception())
        return self._joining

    async def _join(self) -> None:
        if self._settings.is_in_memory:
            self._local = self._local or LocalOwners(self._settings, timing=self._timing)
            return
        from conversation_actors.runtime.threads import in_thread  # noqa: PLC0415

        # Ray takes most of a second to import, which neither `import conversation_actors` nor a read should.
        runtime = await in_thread(import_module, "conversation_actors.runtime.cluster")
        self._is_joining = runtime.is_joining
        await runtime.connect(self._settings, timing=self._timing)
        self._directory = runtime.ActorDirectory(self._settings)
        await self._failures.once("line", self._speak_as_ray)
        self._background = asyncio.create_task(self._failures.once("pool", self._directory.start_pool))

    async def _speak_as_ray(self) -> None:
        """Speak TLS on lines if Ray does on its own; what fails leaves owners to Ray's calls."""
        from conversation_actors.runtime.ray_environment import tls_files  # noqa: PLC0415  # see `_join`

        if (files := tls_files()) is not None:
            self._tls = await asyncio.to_thread(client_context, *files)

    async def _end_joining(self) -> None:
        self._has_left = True
        joining, self._joining = self._joining, None
        if joining is not None and not joining.done():
            # A process that ends while Ray is being joined, which takes about a second, may crash.
            await asyncio.wait({joining}, timeout=self._timing.joined)
            if not joining.done() and self._is_joining():
                await asyncio.wait({joining}, timeout=self._settings.timeouts.close.total_seconds())
            joining.cancel()
        if self._background is not None:
            self._background.cancel()

    async def _tell_of_deletion(self, conversation_id: str) -> None:
        """Have a running owner find out, by a fresh read, that it owns nothing any more."""
        loop = asyncio.get_running_loop()
        if not self._has_joined and loop.time() < self._untold_until:
            return
        try:
            async with asyncio.timeout(self._timing.tell):
                await self.join_cluster()
        except (ConversationError, TimeoutError) as error:
            reason = str(error) or f"not joined within {self._timing.tell:g} s"
            logger.info("owners, if any run, are not told of deletions", extra={"reason": reason})
            self._untold_until = loop.time() + _UNTOLD_SECONDS
            return
        owner = self._owner(conversation_id)
        try:
            await owner.tell_of_deletion()
        except ConversationError as error:  # it is deleted all the same
            logger.info("an owner was told of a deletion, and failed", extra={"reason": str(error)})
        finally:
            await owner.aclose()

    @property
    def _has_joined(self) -> bool:
        joining = self._joining
        return joining is not None and joining.done() and not joining.cancelled() and joining.exception() is None

    def _connected_store(self) -> Store:
        if self._store is None:
            message = "client: not connected; use `async with ConversationClient() as client`"
            raise InvalidInputError(message, field="client")
        return self._store

    def _owner(self, conversation_id: str) -> RemoteOwner:
        self._connected_store()
        return RemoteOwner(self._port(conversation_id), self._settings, timing=self._timing)

    async def _join_at_last(self, *, anew: bool) -> None:
        """See `Join`. A client that is being closed still joins: its handles have a while to send what waits."""
        if not anew and self._joining is not None and self._joining.done():
            self._joining.result()
        joining = None if self._has_left else await self._ended_joining()
        if joining is None or joining.cancelled():
            message = "the client was closed before it had joined its cluster"
            raise ClusterUnavailableError(message)
        joining.result()

    def _port(self, conversation_id: str) -> OwnerPort:
        if self._local is not None:
            return self._local.port(conversation_id)
        from conversation_actors.runtime import RayPort  # noqa: PLC0415  # see `_join`

        assert self._directory is not None
        port = RayPort(conversation_id, directory=self._directory, settings=self._settings)
        if self._settings.direct is Direct.OFF:
            return port
        return DirectPort(port, timing=self._timing, tls=self._tls, failures=self._failures)


def _checked(settings: Settings | None) -> Settings:
    """Return the settings, or those of the environment. Raises `InvalidInputError` for what are none."""
    if settings is not None and not isinstance(settings, Settings):
        message = f"settings: expected Settings, got {type(settings).__name__}"  # type: ignore[unreachable]  # untyped callers
        raise InvalidInputError(message, field="settings")
    return settings or Settings()
