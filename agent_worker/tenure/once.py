"""What is done once in a conversation's life, whoever dies meanwhile: its mark is durable before it begins."""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self
from uuid import uuid4

from agent_worker.failures import Failures
from agent_worker.tenure.backlog import MAX_OWNER_FAILURES, is_trouble
from agent_worker.timing import TIMING, Timing
from conversation_actors import ConversationHandle, Lease, LeaseLostError
from conversation_actors.backoff import Backoff
from conversation_actors.errors import (
    ConflictError,
    ConversationClosedError,
    ConversationError,
    ConversationNotFoundError,
    InvalidInputError,
    ItemTooLargeError,
    OwnerFailedError,
    RefusedError,
    RetryableError,
)
from conversation_actors.values import check_id

PREFIX = "livekit.once."
"""In front of the names of the attributes that hold the marks; they are every role's."""
MAX_NAME_CHARACTERS = 128
_LOOK_SECONDS = 0.1
"""How often the local copy is looked at: of what is made known in it later than that nothing is told again."""
_MENDED = (RetryableError, ConflictError, LeaseLostError, ConversationClosedError, ConversationNotFoundError)
"""What waiting mends, or ends: who lost the lease for good is told so by its own tenure."""

Held = tuple[ConversationHandle, Lease | None]
"""The conversation, and the lease in whose name is written; a job that stands by has none yet."""


class NoRoomError(RefusedError):
    """The conversation's attributes are full, so that it cannot be noted that something begins: it was not done."""

    @classmethod
    def of(cls, error: ItemTooLargeError) -> Self:
        """What the owner has said, in one sentence."""
        return cls(
            f"once: the conversation's attributes are full ({error.size} bytes; the limit is {error.limit}), "
            "so it cannot be noted that this begins; nothing was done"
        )


@dataclass(frozen=True, slots=True)
class Todo:
    """Whether this job is the one that does it; false where it was done, or begun, before."""

    is_due: bool
    is_unknown: bool = False
    """It was begun, and nobody knows whether it was done: who began it died meanwhile, or is still at it."""

    def __bool__(self) -> bool:
        """Whether it is to be done now."""
        return self.is_due


def mark_name(name: object) -> str:
    """The attribute that tells of it. Raises `InvalidInputError`."""
    checked = check_id(name, "once")
    if len(checked) > MAX_NAME_CHARACTERS:
        message = f"once: {len(checked)} characters; the limit is {MAX_NAME_CHARACTERS}"
        raise InvalidInputError(message, field="once")
    return PREFIX + checked


class Mark:
    """The mark of one thing that is done once, as one job makes it in one try to be the one that does it."""

    def __init__(self, name: str, holder: str) -> None:
        """`name` is that of the attribute, `holder` whoever tries."""
        self.name = name
        self.token = uuid4().hex
        """Whose a stored mark is: nobody else changes it."""
        self.begun: Mapping[str, Any] = {"state": "begun", "by": holder, "token": self.token, "at": time.time()}
        """The mark while it is being done."""

    @property
    def done(self) -> Mapping[str, Any]:
        """The mark when it is done."""
        return {**self.begun, "state": "done", "at": time.time()}


@dataclass(frozen=True, slots=True, eq=False)
class _Wish:
    """What a mark is to be; None: it is taken back."""

    token: Any
    value: Mapping[str, Any] | None

    def is_due(self, there: Any) -> bool:
        """Whether that is to be written over what is there: never over another one's, nor over what is done."""
        if there is None:
            return self.value is not None
        return _token(there) == self.token and not _is_done(there)


class Marks:
    """The marks of one conversation, as one job knows and makes them.

    Each is written by compare-and-set, and only over nothing or the same try's own: a late answer, or a job that
    stood by meanwhile, takes nothing back that is another one's. What the job has seen of marks is told again to
    a conversation that was lost, whoever made them: who dialled may be dead.
    """

    def __init__(
        self,
        held: Callable[[], Held | None],
        failures: Failures,
        *,
        on_trouble: Callable[[Exception], None],
        timing: Timing = TIMING,
    ) -> None:
        """`held` gives the conversation, None while there is none; `on_trouble` is told why something waits."""
        self._held, self._failures, self._on_trouble, self._backoff = held, failures, on_trouble, timing.once
        self._life = ""
        self._known: dict[str, Mapping[str, Any]] = {}
        self._wishes: dict[str, _Wish] = {}
        self._owner_failures = 0
        self._is_over = False
        self._wake, self._progress = asyncio.Event(), asyncio.Event()

    def look(self, handle: ConversationHandle) -> None:
        """Note what the local copy shows; in another life than before, what that one showed is to be told. No I/O."""
        life = _life_of(handle.leases)
        if not life:
            return  # of one that has never had an agent nobody can tell
        if self._life not in {"", life}:
            for name, value in self._known.items():
                self._want(name, value)
        self._life = life
        self._known = {n: v for n, v in handle.attributes.items() if n.startswith(PREFIX) and isinstance(v, Mapping)}

    async def begin(self, mark: Mark, held: Callable[[], Held | None]) -> Todo:
        """Write the mark where there is none; returns when that is durable, or who else was first.

        While the conversation does not answer this waits. `held` gives the conversation; None where this job is its
        agent no longer: then it is nobody's who asks here.
        """
        backoff = Backoff(self._backoff)
        while (now := held()) is not None:
            try:
                return await self._begin(mark, *now)
            except _MENDED:
                pass
            except InvalidInputError as error:
                if isinstance(error, ItemTooLargeError):
                    raise NoRoomError.of(error) from error
                if not now[0].is_closed:  # else it is opened anew: that was in vain once
                    raise
            await backoff.wait()
        return Todo(is_due=False, is_unknown=True)

    async def settle(self, mark: Mark, value: Mapping[str, Any] | None) -> None:
        """Say what became of it, None: nothing; returns when that is durable, or somebody else's business."""
        if not self._is_over:
            self._wishes[mark.name] = _Wish(mark.token, value)
            self._wake.set()
        await self.settled()

    async def settled(self) -> None:
        """Return when all marks are as they are to be, as far as that is this job's."""
        while self._wishes:
            await self._progress.wait()

    def give_up(self) -> None:
        """Nothing more is to be told: this job is the agent no longer."""
        self._is_over = True
        self._wishes.clear()
        self._known.clear()
        self._note_progress()

    async def tell(self) -> None:
        """Look once, when it is time or there is something to tell; and tell it. Raises what waiting may mend."""
        await self._until_woken()
        now = self._held()
        if now is None or now[0].is_closed:
            await asyncio.sleep(_LOOK_SECONDS)
            return
        self.look(now[0])
        if not self._wishes:
            return
        try:
            await self._tell(*now)
        except ConflictError:
            self._wake.set()
            await asyncio.sleep(self._backoff[0])
        except ConversationError as error:
            self._wake.set()
            if is_trouble(error):
                self._on_trouble(error)
            if self._is_for_good(error) and not now[0].is_closed:
                self._wishes.clear()
                self._note_progress()
            raise
        else:
            self._owner_failures = 0

    async def _until_woken(self) -> None:
        try:
            async with asyncio.timeout(_LOOK_SECONDS):
                await self._wake.wait()
        except TimeoutError:
            pass  # time to look
        self._wake.clear()

    def _is_for_good(self, error: ConversationError) -> bool:
        self._owner_failures = self._owner_failures + 1 if isinstance(error, OwnerFailedError) else 0
        return not is_trouble(error) or self._owner_failures >= MAX_OWNER_FAILURES

    async def _tell(self, handle: ConversationHandle, lease: Lease | None) -> None:
        seen = await handle.snapshot()
        wishes = dict(self._wishes)
        changes = {name: wish.value for name, wish in wishes.items() if wish.is_due(seen.attributes.get(name))}
        if changes:
            await handle.set_attributes(changes, expected_seq=seen.seq, lease=lease)
        for name, wish in wishes.items():
            if self._wishes.get(name) is wish:
                del self._wishes[name]
        for name, value in changes.items():
            self._note(name, value)
        self._note_progress()

    async def _begin(self, mark: Mark, handle: ConversationHandle, lease: Lease | None) -> Todo:
        seen = await handle.snapshot()
        self.look(handle)
        stored = seen.attributes.get(mark.name)
        there = self._lost(mark.name, _life_of(seen.leases)) if stored is None else stored
        if there is None or (stored is None and _token(there) == mark.token):
            # refused where any attribute has changed since: of two who see no mark one writes it
            await handle.set_attributes({mark.name: mark.begun}, expected_seq=seen.seq, lease=lease)
            self._note(mark.name, mark.begun)
            return Todo(is_due=True)
        if isinstance(there, Mapping):
            self._note(mark.name, there)
        if _token(there) == mark.token and not _is_done(there):
            return Todo(is_due=True)  # a try whose answer was lost
        return Todo(is_due=False, is_unknown=not _is_done(there))

    def _lost(self, name: str, life: str) -> Mapping[str, Any] | None:
        """A mark that a conversation lacks because it was lost, and not because it was taken back."""
        wish = self._wishes.get(name)
        if wish is not None:
            return wish.value
        known = None if life and life == self._life else self._known.get(name)
        if known is not None:
            self._want(name, known)
        return known

    def _want(self, name: str, value: Mapping[str, Any]) -> None:
        """Have a mark told again, unless this job has to say something newer."""
        self._wishes.setdefault(name, _Wish(_token(value), value))
        self._wake.set()

    def _note(self, name: str, value: Mapping[str, Any] | None) -> None:
        if value is None:
            self._known.pop(name, None)
        else:
            self._known[name] = value

    def _note_progress(self) -> None:
        progress, self._progress = self._progress, asyncio.Event()
        progress.set()


def _life_of(leases: Mapping[str, Lease]) -> str:
    """Which of a conversation's lives its leases are of; empty where nobody has had one."""
    return next((lease.life for lease in leases.values()), "")


def _token(mark: Any) -> Any:
    return mark.get("token") if isinstance(mark, Mapping) else None


def _is_done(mark: Any) -> bool:
    return isinstance(mark, Mapping) and mark.get("state") == "done"
