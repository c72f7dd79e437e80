"""Files of this package's own making: written beside their place, and put there when they are whole."""

import contextlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from tempfile import mkstemp
from types import TracebackType
from typing import BinaryIO, Self
from urllib.parse import quote

from conversation_actors.errors import TransferFileError

_MAX_NAME = 200
_DRAFT_NAME = 60
"""Characters of a file's name that its draft's name begins with: that is no longer than a name may be."""
PART = ".part"
"""How a draft's name ends."""


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Turn what the system refuses inside the block into a `TransferFileError` that names the file."""
    try:
        yield
    except OSError as error:
        message = f"{path}: {error.strerror or error}"
        raise TransferFileError(message) from error


def file_name(conversation_id: str, suffix: str) -> str:
    """Return a file's name for a conversation, another one for each id, though an id may be no name, or be too long."""
    name = quote(conversation_id, safe="@+=, ")
    if name.startswith("."):
        name = "%2E" + name[1:]
    if len(name) > _MAX_NAME:
        beginning = name[:_MAX_NAME].rpartition("%")[0] or name[:_MAX_NAME]
        name = f"{beginning}-{sha256(conversation_id.encode()).hexdigest()[:16]}"
    return name + suffix


class NewFile:
    """A file that is there when it is whole: until then it has another name, and it is removed if anything fails.

    Only its owner may read it. The other name is in the same directory and cannot be foreseen: what has it is this
    object's own. Every method raises `TransferFileError` if the system refuses.
    """

    def __init__(self, path: Path) -> None:
        """Take the place that the file is to have; a file that is there is replaced.

        Entering the block raises `TransferFileError` if something else is there: a link is not followed.
        """
        self._path = self._draft = path
        self._file: BinaryIO | None = None
        self.size = 0

    def __enter__(self) -> Self:
        with naming(self._path):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            _require_no_other_kind(self._path)
            begins = f"{self._path.name[:_DRAFT_NAME]}."
            descriptor, draft = mkstemp(prefix=begins, suffix=PART, dir=self._path.parent)  # O_EXCL, O_NOFOLLOW, 0600
        self._draft = Path(draft)
        self._file = os.fdopen(descriptor, "wb", buffering=1 << 20)
        return self

    def write(self, data: bytes) -> None:
        """Add bytes at the end."""
        assert self._file is not None
        with naming(self._path):
            self._file.write(data)
        self.size += len(data)

    def cut(self, size: int) -> None:
        """Drop everything after the first `size` bytes."""
        assert self._file is not None
        with naming(self._path):
            self._file.flush()
            self._file.truncate(size)
            self._file.seek(size)
        self.size = size

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._file is not None
        if kind is not None:
            with contextlib.suppress(OSError):  # what comes first is what is told
                self._file.close()
            self._draft.unlink(missing_ok=True)
            return
        try:
            with naming(self._path):
                self._file.flush()
                os.fsync(self._file.fileno())
                self._file.close()
                self._draft.replace(self._path)
        except TransferFileError:
            with contextlib.suppress(OSError):  # closing writes what is left, and fails again
                self._file.close()
            self._draft.unlink(missing_ok=True)
            raise


def _require_no_other_kind(path: Path) -> None:
    """Raise unless a file, or nothing, is there. What comes there later is replaced, and not written into."""
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISREG(path.lstat().st_mode):
            message = f"{path}: there is something else than a file (a link, a directory, a device); name another place"
            raise TransferFileError(message)
