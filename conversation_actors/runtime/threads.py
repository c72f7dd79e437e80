"""Calls into Ray that block, made in threads that keep no process from ending."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

Value = TypeVar("Value")


async def in_thread(function: Callable[..., Value], *arguments: Any) -> Value:
    """Call a function that blocks, in a daemon thread of its own.

    Not `asyncio.to_thread`: `asyncio.run` and the interpreter wait for its threads at their end, and Ray's
    calls last a minute and longer while no control plane answers, whatever the caller's time-out was.
    Cancelled, it returns at once; the thread goes on, and what it finds is dropped.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Value] = loop.create_future()

    def settle(value: Value | None, error: BaseException | None) -> None:
        if future.done():
            return
        if error is None:
            future.set_result(value)  # type: ignore[arg-type]  # None only where the function returned it
        else:
            future.set_exception(error)

    def run() -> None:
        value: Value | None = None
        failure: BaseException | None = None
        try:
            value = function(*arguments)
        except BaseException as error:  # noqa: BLE001  # it is raised where it is awaited
            failure = error
        with suppress(RuntimeError):  # the loop was closed meanwhile: nobody waits any more
            loop.call_soon_threadsafe(settle, value, failure)

    threading.Thread(target=run, name="ray-call", daemon=True).start()
    return await future
