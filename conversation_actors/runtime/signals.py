"""SIGTERM, kept from Ray.

Joining a cluster installs a native handler for signals that end a process, whatever stood there before: Ray's own, in
C++. At SIGTERM it prints two native stacks to the terminal and only then has the process end, by the handler of before
where there was one. What SIGTERM does in a program is the program's business; so it gets back what it had.
"""

import ctypes
import faulthandler
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_LOCK = threading.Lock()


@contextmanager
def sigterm_kept() -> Iterator[None]:
    """Join a cluster inside of this, and SIGTERM does afterwards what it did before; in any thread.

    Python lets only the main thread choose handlers. `faulthandler` may be told of a signal in any, and puts back what
    it found when it is told to leave it: exactly that, with its flags, even if somebody else came between. Where the
    program itself has chosen another handler meanwhile, the main thread chooses that one once more.
    """
    with _LOCK, open(os.devnull, "wb") as nowhere:  # noqa: PTH123  # it wants a descriptor, and writes nothing in time
        chosen = signal.getsignal(signal.SIGTERM)
        faulthandler.register(signal.SIGTERM, file=nowhere, all_threads=False, chain=True)
        try:
            yield
        finally:
            faulthandler.unregister(signal.SIGTERM)
            if signal.getsignal(signal.SIGTERM) is not chosen:
                ctypes.pythonapi.Py_AddPendingCall(_CHOOSE_ONCE_MORE, None)


def _choose_once_more(_argument: object) -> int:
    """Tell the kernel of the handler that Python knows of."""
    signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))
    return 0


_CHOOSE_ONCE_MORE = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p)(_choose_once_more)
"""What the main thread calls as soon as it gets to it."""
