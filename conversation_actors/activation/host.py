"""What holds a conversation's activation, wherever that runs: a Ray actor, or a client's own process.

Every method answers with its value or with a `ConversationError` as a value. Raised, it would come back
wrapped with a traceback of the worker's, at three times the price.
"""

import asyncio
import logging
import uuid
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TypeVar

from conversation_actors.activation.activation import Activation, Place
from conversation_actors.clock import uptime
from conversation_actors.errors import ConversationError, ConversationNotFoundError, IncompatibleVersionError
from conversation_actors.failures import Failures
from conversation_actors.protocol import (
    PROTOCOL,
    ActivationInfo,
    Execute,
    Executed,
    LineAddress,
    Opened,
    Polled,
    Seen,
    View,
    incompatible,
)
from conversation_actors.settings import Settings
from conversation_actors.store import Store
from conversation_actors.timing import TIMING, Timing

logger = logging.getLogger(__name__)

Value = TypeVar("Value")

_LOOK_SECONDS = 0.5
_LAST_REPLIES_SECONDS = 1.0
_WITH_SECRET_BYTES = 64 << 10
"""The largest state that is shown together with the line's secret; Ray sends up to 100 KiB from process to process."""


class Host(ABC):
    """Holds at most one activation, recovers it when first asked, and exits when it stops.

    The constructor never fails: an exception there, during a restart, would be the actor's end for ever. It
    recovers at once what is stored, while the first call is on its way; only `open` makes a new conversation.
    """

    def __init__(self, conversation_id: str, settings: Settings, store: Store, *, timing: Timing = TIMING) -> None:
        """Remember what to own, and begin to recover it."""
        self._conversation_id, self._settings, self._store = conversation_id, settings, store
        self._timing = timing
        self._owner = uuid.uuid4().hex
        self._activation: Activation | None = None
        self._activating = asyncio.Lock()
        self._has_activated = asyncio.Event()
        self._calls = 0
        self._last_call = uptime()
        self._is_wanted = True
        self._is_counted = False
        self._failures = Failures(timing=timing)
        self._tasks = [
            asyncio.create_task(self._failures.once("recovery", self._recover)),
            asyncio.create_task(self._failures.keep("exit", self._exit_when_done)),
        ]

    async def open(self, *, create: bool, protocol: int) -> Opened | ConversationError:
        """Activate unless that is done; tell about the activation, and show its state."""
        refusal = _refusal(protocol)
        if refusal is not None:
            return refusal

        async def work(activation: Activation) -> Opened:
            view = await activation.read(fresh=False)
            is_first, self._is_counted = not self._is_counted, True
            was_ready = self._was_ready() if is_first else None
            # What is larger passes through Ray's object store, which may be spilled to a disk: no secret goes along.
            line = await self._line_address() if len(view.snapshot) <= _WITH_SECRET_BYTES else None
            return Opened(self._facts(activation), view, was_ready, line)

        return await self._answer(work, create=create)

    async def info(self, *, protocol: int) -> ActivationInfo | ConversationError:
        """Return the facts of `open` without the state. Creates no conversation."""
        refusal = _refusal(protocol)
        if refusal is not None:
            return refusal

        async def work(activation: Activation) -> ActivationInfo:
            return self._facts(activation)

        return await self._answer(work)

    async def line(self, *, protocol: int) -> LineAddress | IncompatibleVersionError | None:
        """Return where this process listens for lines of its clients' own. Recovers nothing, and is no use."""
        return _refusal(protocol) or await self._line_address()

    def _facts(self, activation: Activation) -> ActivationInfo:
        """Return the facts that the activation tells, with the failures counted around it."""
        info = activation.info()
        return replace(info, failures=dict(Counter(info.failures) + Counter(self._failures.counts)))

    async def execute(self, packed: bytes) -> bytes | ConversationError:
        """From a packed `Execute` to a packed `Executed`; see `Activation.execute`."""

        async def work(activation: Activation) -> bytes:
            executed = await _execute(activation, Execute.unpack(packed))
            return executed.pack()

        return await self._answer(work)

    async def decide(self, call: Execute) -> Executed | ConversationError:
        """See `Activation.execute`."""
        return await self._answer(lambda activation: _execute(activation, call))

    async def read(self, *, fresh: bool) -> View | ConversationError:
        """See `Activation.read`."""
        return await self._answer(lambda activation: activation.read(fresh=fresh))

    async def poll(
        self,
        watcher: str,
        after_seq: int,
        seen: Seen,
        timeout: float,  # noqa: ASYNC109  # see Activation.poll
    ) -> Polled | ConversationError:
        """See `Activation.poll`."""
        return await self._answer(
            lambda activation: activation.poll(watcher=watcher, after_seq=after_seq, timeout=timeout, seen=seen)
        )

    async def let_go(self, watchers: Sequence[str]) -> None:
        """See `Activation.let_go`. Recovers nothing, and is no use."""
        if self._activation is not None and not self._activation.stopped.done():
            self._activation.let_go(watchers)

    async def passivate(self) -> bool | ConversationError:
        """Save a snapshot and exit; True when the snapshot is saved."""

        async def work(activation: Activation) -> bool:
            await activation.passivate()
            return True

        return await self._answer(work)

    async def _answer(
        self, work: Callable[[Activation], Awaitable[Value]], *, create: bool = False
    ) -> Value | ConversationError:
        self._calls += 1
        try:
            activation = await self._activated(create=create)
            self._last_call = uptime()
            answer = await work(activation)
        except ConversationNotFoundError as error:
            self._is_wanted = False
            return error
        except ConversationError as error:
            return error
        else:
            if not self._is_counted:
                self._is_counted = True  # asked for anything else first: it was restarted, and nobody opens it
                self._on_restart()
            return answer
        finally:
            self._calls -= 1

    async def _line_address(self) -> LineAddress | None:
        """Where this process listens for lines of its clients' own; None if it does not."""
        return None

    @abstractmethod
    def _place(self) -> Place:
        """Where the activation runs."""

    @abstractmethod
    def _was_ready(self) -> bool:
        """Whether the process had been started ahead."""

    @abstractmethod
    def _on_restart(self) -> None:
        """Note that the host answers and nobody has opened it: whoever did had another one, which died."""

    @abstractmethod
    async def _exit(self) -> None:
        """Close the store, and be found no more."""

    async def _activated(self, *, create: bool) -> Activation:
        async with self._activating:
            if self._activation is None:
                self._activation = await Activation.recover(
                    self._conversation_id,
                    owner=self._owner,
                    create=create,
                    store=self._store,
                    settings=self._settings,
                    place=self._place(),
                    timing=self._timing,
                )
                self._is_wanted = True
                self._has_activated.set()
            return self._activation

    async def _recover(self) -> None:
        """Be ready before somebody asks. What fails here is noted, tried again when somebody does, and told then."""
        try:
            await self._activated(create=False)
        except ConversationNotFoundError:
            logger.debug("not stored yet")  # the connection is there, for the one who creates it

    async def _exit_when_done(self) -> None:
        """Leave when the activation has stopped, or when there is none to be had.

        What fails here is noted, and tried again: a process that owns nothing must not stay.
        """
        while self._activation is None and not self._is_superfluous():
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_SECONDS):
                    await self._has_activated.wait()
        if self._activation is not None:
            await self._activation.stopped
            await self._last_replies()
        await self._exit()

    def _is_superfluous(self) -> bool:
        """Nobody is being answered, and what was asked for does not exist, or was not to be had for too long."""
        unused = uptime() - self._last_call
        return not self._calls and (not self._is_wanted or unused > self._settings.idle_timeout.total_seconds())

    async def _last_replies(self) -> None:
        """Let those who are being answered have their answer; the loop needs a few turns for that."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_LAST_REPLIES_SECONDS):
                while self._calls:  # noqa: ASYNC110  # once in a life, for milliseconds
                    await asyncio.sleep(0.005)
        await asyncio.sleep(0.01)


async def _execute(activation: Activation, call: Execute) -> Executed:
    return await activation.execute(
        call.requests, watcher=call.watcher, after_seq=call.after_seq, seen=call.seen, turn=call.turn
    )


def _refusal(protocol: int) -> IncompatibleVersionError | None:
    return None if protocol == PROTOCOL else incompatible(protocol)
