"""Reaching a conversation's owner, wherever it runs and however often it dies."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from typing import Any

from ray.exceptions import ActorUnavailableError, RayTaskError

from conversation_actors.clock import uptime
from conversation_actors.errors import (
    ActivationLostError,
    ClusterUnavailableError,
    ConversationError,
    OwnerFailedError,
    RetryableError,
)
from conversation_actors.protocol import PROTOCOL, ActivationInfo, Opened, View
from conversation_actors.runtime.answers import answer_of
from conversation_actors.runtime.cluster import ActorDirectory
from conversation_actors.runtime.hang import HangWatch
from conversation_actors.runtime.membership import place, tells_of_loss
from conversation_actors.runtime.threads import in_thread
from conversation_actors.settings import Settings

log = logging.getLogger(__name__)

Handle = Any
"""Ray's proxy of a `ConversationActor`; Ray makes its methods at run time."""
Send = Callable[[Handle], Awaitable[Any]]

_BACKOFF = (0.01, 0.5)
_RESTART_SECONDS = 1.0
"""An owner that Ray is restarting for longer than this may be one whose cluster is gone."""
_USUAL_SECONDS = 2.0
"""An owner that has not answered for so long is asked for a sign of life beside."""


_QUIET_SECONDS = 60.0
_told_at: float | None = None
"""When it was last told that owners cannot be looked for: each open handle of a process finds the same."""


def _tell_of_absence(error: Exception) -> None:
    """Log that Ray's head does not answer, once a minute in a process."""
    global _told_at  # noqa: PLW0603  # of the process, as the connection to Ray is
    now = uptime()
    if _told_at is None or now - _told_at >= _QUIET_SECONDS:
        _told_at = now
        reason = str(error) or "no answer in time"
        log.warning("owners cannot be looked for: Ray does not answer, and is asked again", extra={"reason": reason})


class RemoteOwner:
    """One conversation's owner as seen from this process.

    `call` finds or starts the actor, asks it, and asks again after a crash, a restart, a passivation or a
    fence, until it has an answer or the time is up. So a call may be executed more than once: what
    changes anything carries a request id, by which the owner recognises the repeat.
    """

    def __init__(self, conversation_id: str, *, directory: ActorDirectory, settings: Settings) -> None:
        """Know whom to ask; nothing is looked up yet."""
        self._conversation_id, self._directory = conversation_id, directory
        self._timeouts = settings.timeouts
        self._actor: Handle | None = None
        self._joined = ""
        """The `place` in which the actor in hand was looked up."""
        self._unavailable_since: float | None = None
        self._resolving = asyncio.Lock()
        self._hang = HangWatch(conversation_id, seconds=settings.timeouts.hang.total_seconds())

    async def open(self, *, create: bool) -> tuple[ActivationInfo, View]:
        """Start or find the owner, and have it show its state. Raises `ConversationNotFoundError` unless `create`."""
        opened: Opened = await self.call(
            lambda actor: actor.open.remote(create=create, protocol=PROTOCOL),
            self._timeouts.open.total_seconds(),
            patient=True,
        )
        if opened.was_ready is not None:
            self._directory.started(opened.info, was_ready=opened.was_ready)
        return opened.info, opened.view

    async def info(self) -> ActivationInfo:
        """Facts about the activation; starts one if none runs. Raises `ConversationNotFoundError`."""
        info: ActivationInfo = await self.call(
            lambda actor: actor.info.remote(protocol=PROTOCOL), self._timeouts.open.total_seconds(), patient=True
        )
        return info

    async def call(self, send: Send, timeout: float, *, patient: bool = False) -> Any:  # noqa: ASYNC109  # spans many attempts
        """Ask until answered, for `timeout` seconds in all.

        Raises the owner's `ConversationError`, or `ClusterUnavailableError` when nobody answered; the call
        may have been executed all the same. If `patient`, an owner's `RetryableError` is no answer, until
        the time is up.
        """
        trouble: Exception | None = None
        delay, longest = _BACKOFF
        try:
            async with asyncio.timeout(timeout):
                while True:
                    try:
                        answer = await self._attempt(send)
                    except RetryableError as error:
                        if not patient:
                            raise
                        answer = _NoAnswer(error)
                    if not isinstance(answer, _NoAnswer):
                        return answer
                    trouble = answer.reason
                    await asyncio.sleep(delay * random.uniform(0.5, 1.0))  # noqa: S311  # spreads load, guards nothing
                    delay = min(delay * 2, longest)
        except TimeoutError:
            if isinstance(trouble, RetryableError):
                raise trouble from None
            message = f"the conversation's owner has not answered in {timeout} s ({trouble or 'no reply'})"
            raise ClusterUnavailableError(message) from trouble

    async def call_if_running(
        self,
        send: Send,
        timeout: float,  # noqa: ASYNC109  # one attempt
        *,
        usual: float = _USUAL_SECONDS,
    ) -> Any:
        """Ask the owner that runs now; None if none does. Wakes no passivated conversation.

        One that takes longer than its `usual` seconds is asked for a sign of life beside.
        """
        try:
            async with asyncio.timeout(timeout):
                await self._confirm_if_unavailable()
                if not self._has_actor:
                    self._actor = await self._find()
                    self._joined = place()
        except (ClusterUnavailableError, TimeoutError) as error:
            _tell_of_absence(error)
            return None
        if self._actor is None:
            return None
        answer = await self._ask(self._actor, send, timeout, usual=usual)
        return None if isinstance(answer, _NoAnswer) else answer

    async def passivate(self, timeout: float) -> None:  # noqa: ASYNC109  # spans many attempts
        """Have the owner that runs now stop; return when it has, or when none runs.

        Raises what the owner raises, or `ClusterUnavailableError` when it does not answer.
        """
        delay, longest = _BACKOFF
        try:
            async with asyncio.timeout(timeout):
                while await self._find() is not None:
                    if await self.call_if_running(lambda actor: actor.passivate.remote(), timeout):
                        return
                    await asyncio.sleep(delay * random.uniform(0.5, 1.0))  # noqa: S311  # spreads load, guards nothing
                    delay = min(delay * 2, longest)
        except TimeoutError:
            message = f"the conversation's owner has not answered in {timeout} s"
            raise ClusterUnavailableError(message) from None

    @property
    def _has_actor(self) -> bool:
        """Whether there is an actor in hand that was looked up in the cluster of now."""
        return self._actor is not None and self._joined == place()

    async def _find(self) -> Handle | None:
        try:
            return await in_thread(self._directory.find, self._conversation_id)
        except Exception as error:
            if not tells_of_loss(error):
                raise
            message = f"the cluster cannot be asked for the owner ({error!r})"
            raise ClusterUnavailableError(message) from error

    async def _attempt(self, send: Send) -> Any:
        """One try, with the actor in hand or the one that the name stands for now."""
        async with self._resolving:
            try:
                await self._confirm_if_unavailable()
                if not self._has_actor:
                    self._actor = await in_thread(self._directory.get_or_create, self._conversation_id)
                    self._joined = place()
            except ClusterUnavailableError as error:
                return _NoAnswer(error)
            except Exception as error:
                if not tells_of_loss(error):
                    raise
                return _NoAnswer(error)
            actor = self._actor
        return await self._ask(actor, send, self._timeouts.attempt.total_seconds())

    async def _confirm_if_unavailable(self) -> None:
        """Ask the head before the actor is asked once more that Ray has been restarting for too long.

        Raises `ClusterUnavailableError`. Without a head it stays so for ever, and behind another one too.
        """
        since = self._unavailable_since
        if since is not None and asyncio.get_running_loop().time() - since >= _RESTART_SECONDS:
            await in_thread(self._directory.confirm)

    async def _ask(
        self,
        actor: Handle,
        send: Send,
        timeout: float,  # noqa: ASYNC109  # of this one call
        *,
        usual: float = _USUAL_SECONDS,
    ) -> Any:
        """The answer, or `_NoAnswer` when another try may find one."""
        doubt = asyncio.get_running_loop().call_later(min(usual, timeout / 2), self._hang.suspect, actor)
        try:
            # not wait_for: up to Python 3.11 it loses a cancellation that comes together with the answer
            async with asyncio.timeout(timeout):
                answer = await answer_of(send(actor))
        except RayTaskError as error:
            # The actor answers what it expects to fail as values; no repeat mends this.
            message = f"the conversation's owner failed: {error.cause!r}"
            raise OwnerFailedError(message) from error
        except ActorUnavailableError as error:
            if self._unavailable_since is None:
                self._unavailable_since = asyncio.get_running_loop().time()
            return _NoAnswer(error)  # Ray is restarting it; the handle in hand stays good
        except Exception as error:
            if not tells_of_loss(error):  # time-outs do
                raise
            self._forget(actor)
            return _NoAnswer(error)
        finally:
            doubt.cancel()
        self._unavailable_since = None
        if isinstance(answer, ActivationLostError):
            self._forget(actor)
            return _NoAnswer(answer)
        if isinstance(answer, ConversationError):
            raise answer
        return answer

    def _forget(self, actor: Handle) -> None:
        """Look the owner up again before the next call, unless somebody has done so meanwhile."""
        if self._actor is actor:
            self._actor = None


class _NoAnswer:
    def __init__(self, reason: Exception) -> None:
        self.reason = reason
