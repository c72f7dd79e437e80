"""The way in: one client per process, as an async context manager."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Self

from conversation_actors.client.handle import ConversationHandle
from conversation_actors.client.opening import open_checked_store
from conversation_actors.errors import ConversationNotFoundError, InvalidInputError, StoreUnavailableError
from conversation_actors.failures import Failures
from conversation_actors.settings import Settings, quick_crash_detection
from conversation_actors.store import Found, Store
from conversation_actors.values import check_id
from conversation_actors.versions import tell_untested

if TYPE_CHECKING:
    from conversation_actors.runtime import ActorDirectory, RemoteOwner


class ConversationClient:
    """Opens, lists and deletes conversations. Belongs to one event loop; share it, it is cheap to use.

    Entering joins the Ray cluster (`ClusterUnavailableError` if there is none) and asks Redis whether it
    can do what the settings ask for (`StoreMisconfiguredError`). Redis being away at that moment is no
    error: calls wait for it, each as long as its time-out.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        """Without `settings`, read them from the environment. Connects when entered."""
        if settings is not None and not isinstance(settings, Settings):
            message = f"settings: expected Settings, got {type(settings).__name__}"  # type: ignore[unreachable]  # untyped callers
            raise InvalidInputError(message, field="settings")
        self._settings = settings or Settings()
        self._handles: dict[str, ConversationHandle] = {}
        self._store: Store | None = None
        self._directory: ActorDirectory | None = None
        self._background: asyncio.Task[None] | None = None
        self._failures = Failures()

    @property
    def failures(self) -> Mapping[str, int]:
        """What went wrong in the background and was survived, by task. `pool`: no workers are started ahead of time."""
        return self._failures.counts

    async def __aenter__(self) -> Self:
        """Connect."""
        # Ray takes most of a second to import, which `import conversation_actors` should not.
        from conversation_actors.runtime import ActorDirectory, connect  # noqa: PLC0415

        tell_untested("pydantic", "ray", "redis")
        self._store = await open_checked_store(self._settings)
        try:
            with quick_crash_detection():
                await connect(self._settings)
        except BaseException:
            await self._store.aclose()
            raise
        self._directory = ActorDirectory(self._settings)
        self._background = asyncio.create_task(self._failures.once("pool", self._directory.start_pool))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close."""
        await self.aclose()

    async def open(self, conversation_id: str, *, create: bool = True) -> ConversationHandle:
        """Get or create a conversation; return when its owner answers.

        A second `open` of an id returns the same handle. Raises `ConversationNotFoundError` if there is no
        such conversation and `create` is false.
        """
        conversation_id = check_id(conversation_id, "conversation_id")
        if not create and not await self._may_exist(conversation_id):
            message = f"no conversation {conversation_id!r}"
            raise ConversationNotFoundError(message)
        was_open = self._open_handle(conversation_id) is not None
        owner = self._owner(conversation_id)
        _, view = await owner.open(create=create)
        self._connected_store()  # closed meanwhile, nobody would close the handle
        # Somebody else may have opened or closed it in this process meanwhile: one handle an id, for one order.
        known = self._open_handle(conversation_id)
        if known is None:
            known = self._handles[conversation_id] = ConversationHandle(conversation_id, owner, view, self._settings)
        elif was_open:
            await known.catch_up(view)
        return known

    async def _may_exist(self, conversation_id: str) -> bool:
        """Whether it is worth a process to ask: looked up in Redis, where that answers."""
        try:
            return await self._connected_store().head(conversation_id) is not None
        except StoreUnavailableError:
            return True

    def _open_handle(self, conversation_id: str) -> ConversationHandle | None:
        """The handle of this id that is in use; those that were closed are dropped on the way."""
        for closed in [name for name, handle in self._handles.items() if handle.is_closed]:
            del self._handles[closed]
        return self._handles.get(conversation_id)

    async def list(self, *, participant: str | None = None) -> AsyncIterator[Found]:
        """Stored conversations, the most recently active first; with `participant`, those it took part in."""
        if participant is not None:
            participant = check_id(participant, "participant")
        async for found in self._connected_store().list(participant=participant):
            yield found

    async def delete(self, conversation_id: str) -> None:
        """Forget a conversation and stop its owner. Raises `ConversationNotFoundError` if there is none.

        Handles of it raise `ConversationNotFoundError` from then on, until somebody opens it anew.
        """
        conversation_id = check_id(conversation_id, "conversation_id")
        existed = await self._connected_store().delete(conversation_id, ttl=self._settings.ttl)
        # A fresh read makes a running owner find out that it owns nothing any more.
        await self._owner(conversation_id).call_if_running(
            lambda actor: actor.read.remote(fresh=True), self._settings.timeouts.command.total_seconds()
        )
        if not existed:
            message = f"no conversation {conversation_id!r}"
            raise ConversationNotFoundError(message)

    async def aclose(self) -> None:
        """Send what is in the handles' outboxes, and let go of everything. Idempotent."""
        handles, self._handles = self._handles, {}
        store, self._store = self._store, None
        if self._background is not None:
            self._background.cancel()
        try:
            await asyncio.gather(*(handle.aclose() for handle in handles.values()), return_exceptions=True)
        finally:
            if store is not None:
                await store.aclose()

    def _connected_store(self) -> Store:
        if self._store is None:
            message = "client: not connected; use `async with ConversationClient() as client`"
            raise InvalidInputError(message, field="client")
        return self._store

    def _owner(self, conversation_id: str) -> "RemoteOwner":
        from conversation_actors.runtime import RemoteOwner  # noqa: PLC0415  # see __aenter__

        self._connected_store()
        assert self._directory is not None
        return RemoteOwner(conversation_id, directory=self._directory, settings=self._settings)
