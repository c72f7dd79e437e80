"""SIGTERM, kept from Ray.

Joining a cluster installs a native handler for signals that end a process, whatever stood there before: Ray's own, in
C++. At SIGTERM it prints two native stacks to the terminal and only then has the process end, by the handler of before
where there was one. What SIGTERM does in a program is the program's business; so it gets back what it had.
"""

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
    it found when it is told to leave it: exactly that, with its flags, even if somebody else came between.
    """
    with _LOCK, open(os.devnull, "wb") as nowhere:  # noqa: PTH123  # it wants a descriptor, and writes nothing in time
        faulthandler.register(signal.SIGTERM, file=nowhere, all_threads=False, chain=True)
        try:
            yield
        finally:
            faulthandler.unregister(signal.SIGTERM)
