"""Files that the processes of one user share with each other and with nobody else: notes, and locks."""

import fcntl
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Replace a file in one step, so that nobody reads half of it; only its owner may read it."""
    draft = path.with_suffix(".draft")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
        json.dump(values, file)
    draft.replace(path)


def try_lock(path: Path) -> int | None:
    """Return a descriptor that holds the lock until it is closed; None while another process holds the lock.

    The kernel releases the lock, however the process ends.
    """
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor
