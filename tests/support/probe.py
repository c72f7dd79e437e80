"""What tests run in Ray's workers to see how they were started. It imports nothing that a worker has not."""

import asyncio
import atexit
import gc
import logging
import os
import random
import resource
import signal
import subprocess
import sys
import threading
import uuid
import warnings
from pathlib import Path
from typing import Any

_OWN = ("--worker-id=", "--worker-launch-time-ms=", "--runtime-env-hash=")
"""Options of a worker that no other worker has."""
_STATUS = {"Uid", "Gid", "Groups", "SigBlk", "SigIgn", "SigCgt", "CapEff", "CapBnd", "NoNewPrivs", "Seccomp"}


def is_forked() -> bool:
    """Tell whether this process came from a fork server."""
    return os.environ.get("CONVERSATION_WORKER_FORKED") == str(os.getpid())


def has_event_loop() -> bool:
    """Tell whether the main thread gets a loop for the asking; before Python 3.14, until a program has run one."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            asyncio.get_event_loop().close()
        except RuntimeError:
            return False
    return True


def loaded(_actor: object) -> tuple[set[str], int]:
    """Return the names of what this process has imported, and how many of the store's scripts it has read."""
    scripts = sys.modules["conversation_actors.store.scripts"]
    return set(sys.modules), scripts._text.cache_info().currsize


def describe() -> dict[str, Any]:
    """Return everything about this process that its start decides; equal for two workers that started alike."""
    main = sys.modules["__main__"]
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    umask = os.umask(0)
    os.umask(umask)
    return {
        "argv": [argument for argument in sys.argv if not argument.startswith(_OWN)],
        "orig_argv": [argument for argument in sys.orig_argv if not argument.startswith(_OWN)],
        "interpreter": (sys.executable, sys.prefix, str(sys.flags), sys.getrecursionlimit(), sys.getswitchinterval()),
        "path": list(sys.path),
        "main": (main.__name__, getattr(main, "__file__", None)),
        "main's names": sorted(name for name in vars(main) if not name.startswith("__")),
        "directory": str(Path.cwd()),
        "umask": umask,
        "handlers": {number.name: str(signal.getsignal(number)).split(" at ")[0] for number in signal.Signals},
        "status": {name: value.split() for name, value in status.items() if name in _STATUS},
        "limits": {name: resource.getrlimit(getattr(resource, name)) for name in dir(resource) if "RLIMIT" in name},
        "priority": (os.nice(0), Path("/proc/self/oom_score_adj").read_text(), sorted(os.sched_getaffinity(0))),
        "group": (os.getpgid(0) == os.getpid(), os.getsid(0)),
        "collector": (gc.isenabled(), gc.get_threshold(), gc.get_debug()),
        "warnings": [str(entry) for entry in warnings.filters],
        "logging": (logging.root.level, [str(handler) for handler in logging.root.handlers]),
        "streams": [(stream.encoding, stream.errors) for stream in (sys.stdin, sys.stdout, sys.stderr)],
        "threads": sorted(thread.name for thread in threading.enumerate()),
        "environment": dict(os.environ),
        "environment of its children": dict(
            line.split("=", 1) for line in subprocess.check_output(["env", "-0"], text=True).split("\0") if line
        ),
        "event loop": has_event_loop(),
        "title": Path("/proc/self/comm").read_text(),
    }


class Probe:
    """An actor that tells what process it is in."""

    def pid(self) -> int:
        """Return the process id."""
        return os.getpid()

    def is_forked(self) -> bool:
        """See above."""
        return is_forked()

    def describe(self) -> dict[str, Any]:
        """See above."""
        return describe()

    def say(self, text: str) -> None:
        """Print, to both streams."""
        print(text)  # noqa: T201  # the subject
        print(text, file=sys.stderr)  # noqa: T201  # same

    def draw(self) -> list[str]:
        """Return what should be no other process's: from each generator that ids are made of."""
        from ray import NodeID, ObjectRef  # a worker has imported it

        ids = (NodeID.from_random(), ObjectRef.from_random())
        return [*(made.hex() for made in ids), uuid.uuid4().hex, str(random.random()), os.urandom(8).hex()]

    def write_at_exit(self, path: str) -> None:
        """Have the interpreter write a file when it ends in order."""
        atexit.register(Path(path).write_text, str(os.getpid()))
