"""Waiting for an actor's answer so that whoever gives up waiting disturbs nobody."""

import asyncio
from collections.abc import Awaitable
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

_CLIENT = "ray.util.client.common"


async def answer_of(reference: Awaitable[Any]) -> Any:
    """Return what a call of an actor gives, or raise it.

    Through Ray's client (``ray://``) an answer to somebody who was cancelled is an error in Ray's own thread, which
    prints a traceback: there it comes to a future that nobody cancels.
    """
    if type(reference).__module__ != _CLIENT:
        return await reference
    loop = asyncio.get_running_loop()
    answered: asyncio.Future[Any] = loop.create_future()

    def tell(done: "Future[Any]") -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(_settle, answered, done)

    reference.future().add_done_callback(tell)  # type: ignore[attr-defined]  # Ray's type, which needs grpcio
    return await answered


def _settle(answered: "asyncio.Future[Any]", done: "Future[Any]") -> None:
    if answered.done():
        return
    if (error := done.exception()) is not None:
        answered.set_exception(error)
    else:
        answered.set_result(done.result())
