"""A server whose clock a test sets: of the wall, not the monotonic one, as when somebody sets a machine's clock."""

import os
import subprocess
from pathlib import Path

from tests.support.servers import Server

REMEDY = "no libfaketime: install the package libfaketime"
_PLACES = ("/usr/lib", "/usr/lib64", "/usr/local/lib")
_SHARED = Path("/dev/shm")  # noqa: S108  # not ours to choose


def libfaketime() -> Path | None:
    """Find the library that is loaded before a program's own."""
    for place in _PLACES:
        for path in (*Path(place).glob("faketime/libfaketime.so.1"), *Path(place).glob("*/faketime/libfaketime.so.1")):
            return path
    return None


class ClockedServer(Server):
    """A server with a clock of its own."""

    def __init__(self, binary: Path, directory: Path, library: Path) -> None:
        """Its clock is right until it is set."""
        self._offset = directory / "offset"
        directory.mkdir(parents=True, exist_ok=True)
        self.set_clock(0)
        faked = {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(self._offset),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
        super().__init__(binary, directory, environment={**os.environ, **faked})

    def set_clock(self, ahead: float) -> None:
        """Let its clock be so many seconds ahead of this machine's, from now on."""
        written = self._offset.with_suffix(".new")
        written.write_text(f"{ahead:+.0f}s\n")
        written.replace(self._offset)

    def time(self) -> float:
        """Return what it says that time is."""
        with self.client() as client:
            seconds, microseconds = client.time()
            return float(seconds + microseconds / 1e6)

    def kill(self) -> None:
        """See `Server.kill`; what the library leaves in shared memory goes too."""
        super().kill()
        if self.process is not None:
            for name in (f"faketime_shm_{self.process.pid}", f"sem.faketime_sem_{self.process.pid}"):
                (_SHARED / name).unlink(missing_ok=True)


def can_fake(binary: Path, library: Path) -> bool:
    """Tell whether the library takes hold of a program: not of one that is linked statically."""
    faked = {"LD_PRELOAD": str(library), "FAKETIME": "+0"}
    asked = subprocess.run([binary, "--version"], env={**os.environ, **faked}, capture_output=True, check=False)
    return asked.returncode == 0 and not asked.stderr
