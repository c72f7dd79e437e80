"""SIGTERM, told to an actor's event loop.

Ray runs an async actor's loop in a thread of its own, while the main thread stays inside Ray's C++ code.
Ray's SIGTERM handler then waits for calls in flight, a parked poll for half a minute, and ends the loop
before the actor learns of anything. Python lets only the main thread choose handlers, and what an actor
can have run there is the import of its class: hence `listen` is called at import, in Ray's worker
processes only. (`ray stop` and a raylet that goes end their workers without any signal: see
`conversation_actors.runtime.drain` for that.)
"""

import asyncio
import signal
import socket
import sys
import threading
from collections.abc import Callable
from functools import cache
from types import FrameType

_WORKER_SCRIPT = "default_worker.py"


@cache
def listen() -> socket.socket | None:
    """Route SIGTERM of a Ray worker process to a socket; None in any other process, or thread.

    From then on SIGTERM alone ends nothing: whoever reads the socket has to.
    """
    in_worker = sys.argv[0].endswith(_WORKER_SCRIPT)
    if not in_worker or threading.current_thread() is not threading.main_thread():
        return None
    reader, writer = socket.socketpair()
    reader.setblocking(False)
    writer.setblocking(False)
    signal.set_wakeup_fd(writer.detach(), warn_on_full_buffer=False)
    signal.signal(signal.SIGTERM, _leave_it_to_the_loop)
    return reader


def on_sigterm(tell: Callable[[], None]) -> None:
    """Have the running loop call `tell` at SIGTERM, where this process listens for it."""
    reader = listen()
    if reader is None:
        return

    def read() -> None:
        if signal.SIGTERM in reader.recv(64):
            tell()

    asyncio.get_running_loop().add_reader(reader, read)


def _leave_it_to_the_loop(_number: int, _frame: FrameType | None) -> None:
    """Do nothing: the wake-up descriptor has told the loop already."""
