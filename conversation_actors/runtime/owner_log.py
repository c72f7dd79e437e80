"""The log of a node's owners: one file among Ray's logs that all of them write to, rotated by whoever finds it full.

Each line is one JSON object with ``conversation``, ``epoch`` and ``pid``; `conversation_actors.runtime.whereabouts`
finds them again. The pool of workers, which is an actor too, writes there as well.
"""

import fcntl
import json
import logging
import os
import re
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

from ray._private import worker

from conversation_actors.log_lines import JsonFormatter
from conversation_actors.runtime.titles import shown_name
from conversation_actors.settings import Settings

logger = logging.getLogger(__name__)

FILE = "conversation_owners.log"
MAX_BYTES = 10 << 20
"""Of one file; there are at most `KEPT` older ones beside it."""
KEPT = 5
_MODE = 0o600


def log_directory() -> Path | None:
    """Return where this node's Ray keeps its logs; None if this process is in no node."""
    node = getattr(worker, "_global_node", None)
    return None if node is None else Path(node.get_logs_dir_path())


class SharedFile(logging.Handler):
    """A log file that any number of processes write to, and any of them rotates; no line is lost or torn by that.

    A line is one write to the end of the file. Whoever finds the file full renames it under a lock, which nobody waits
    for: where another process has it, even one that is frozen, the line goes to the file as it is.
    """

    def __init__(self, path: Path, *, most_bytes: int = MAX_BYTES, kept: int = KEPT) -> None:
        """`kept`: older files, ``path.1`` being the newest. Nothing is opened before the first line."""
        super().__init__()
        self._path, self._most_bytes, self._kept = path, most_bytes, kept
        self._descriptor: int | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line; what keeps it from being written is told as `logging` does it."""
        try:
            line = self.format(record).encode(errors="backslashreplace") + b"\n"
            descriptor = self._opened()
            if os.fstat(descriptor).st_size + len(line) > self._most_bytes:
                self._rotate()
                descriptor = self._opened()
            os.write(descriptor, line)
        except Exception:  # noqa: BLE001  # as every handler: a log line must not end what it tells of
            self.handleError(record)

    def close(self) -> None:
        """Let go of the file; a further line opens it again."""
        self._forget()
        super().close()

    def _opened(self) -> int:
        """Return the descriptor of the file that is at the path now."""
        if self._descriptor is not None and not self._is_current(self._descriptor):
            self._forget()
        if self._descriptor is None:
            self._descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, _MODE)
        return self._descriptor

    def _is_current(self, descriptor: int) -> bool:
        try:
            return os.path.samestat(self._path.stat(), os.fstat(descriptor))
        except FileNotFoundError:
            return False

    def _forget(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _rotate(self) -> None:
        """Make room, unless somebody else does."""
        lock = os.open(self._numbered("lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _MODE)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # it may have been rotated between the look and the lock
            if self._path.stat().st_size >= self._most_bytes // 2:
                for number in range(self._kept - 1, 0, -1):
                    with suppress(FileNotFoundError):
                        self._numbered(number).replace(self._numbered(number + 1))
                self._path.replace(self._numbered(1))
        except (BlockingIOError, FileNotFoundError):
            pass  # somebody else rotates: see the class
        finally:
            os.close(lock)

    def _numbered(self, suffix: object) -> Path:
        return self._path.with_name(f"{self._path.name}.{suffix}")


class NodeFormatter(JsonFormatter):
    """Lines that say which process of the node they are of."""

    def format(self, record: logging.LogRecord) -> str:
        """Return one line."""
        record.pid = record.process
        return super().format(record)


class OwnerFormatter(NodeFormatter):
    """Lines that say whose they are. With `Settings.hashed_names` the id stands in none of them."""

    def __init__(self, conversation_id: str, settings: Settings) -> None:
        """Begin without an epoch."""
        super().__init__()
        self._name = shown_name(conversation_id, settings)
        self._id = _pattern(conversation_id) if settings.hashed_names else None
        self.epoch: int | None = None

    def format(self, record: logging.LogRecord) -> str:
        """Return one line."""
        record.conversation = self._name
        if not hasattr(record, "epoch"):
            record.epoch = self.epoch
        line = super().format(record)
        return line if self._id is None else self._id.sub(self._name, line)


def _pattern(conversation_id: str) -> re.Pattern[str]:
    """Match an id in a line: as it is, or as part of a key or an address; not inside of another word."""
    spellings = {conversation_id, json.dumps(conversation_id)[1:-1], quote(conversation_id)}
    spellings |= {json.dumps(conversation_id, ensure_ascii=False)[1:-1], json.dumps(repr(conversation_id)[1:-1])[1:-1]}
    alternatives = "|".join(re.escape(one) for one in sorted(spellings, key=len, reverse=True))
    return re.compile(rf"(?<!\w)(?:{alternatives})(?!\w)")


def write_to_node(formatter: logging.Formatter) -> None:
    """Have this process write its log lines to the node's file: ours from INFO on, those of others from WARNING on.

    Where that cannot be, it is told: an actor's constructor, which calls this, must not fail for it.
    """
    try:
        directory = log_directory()
    except Exception:  # where Ray keeps its logs is Ray's own business, and may change
        logger.exception("the log lines of this process stay where they are")
        return
    if directory is None:
        logger.warning("this process belongs to no Ray node: its log lines stay where they are")
        return
    handler = SharedFile(directory / FILE)
    handler.setFormatter(formatter)
    logging.getLogger().addHandler(handler)
    logging.getLogger("conversation_actors").setLevel(logging.INFO)
