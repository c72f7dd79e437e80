"""The package as somebody installs it: a wheel in a virtual environment, without npm and without a compiler."""

import os
import shlex
import shutil
import signal
import subprocess
import sys
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from conversation_actors.cli.processes import kill_session
from tests.support.servers import wait_for

ROOT = Path(__file__).parents[2]
_TOOLS = ("bash", "cat", "env", "ls", "ps", "sh", "uname")
"""What our commands and Ray (bash) look for on PATH, and every system has."""
_INSTALL_SECONDS = 400
_COMMAND_SECONDS = 150
_ENDING_SECONDS = 60


def build_wheel(directory: Path) -> Path:
    """Build the wheel of this checkout, with the hatchling that is installed."""
    _pip(["wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(directory), str(ROOT)])
    return next(directory.glob("*.whl"))


class Installation:
    """A virtual environment with the wheel, and the environment of a user who has nothing else."""

    def __init__(self, directory: Path) -> None:
        """Nothing is there before `install`."""
        self._place, self._home = directory / "venv", directory / "home"
        self._tools = directory / "tools"
        self.directory = directory / "empty"
        """Where commands run: nothing of the checkout is in reach, and no `.env`."""

    @classmethod
    def install(cls, directory: Path, wheel: Path, *extras: str, on: "Installation | None" = None) -> Self:
        """Install the wheel with these extras. What `on` has is linked instead of being unpacked again."""
        made = cls(directory)
        for path in (made._home, made._tools, made.directory):
            path.mkdir(parents=True)
        for tool in _TOOLS:
            (made._tools / tool).symlink_to(shutil.which(tool) or f"/usr/bin/{tool}")
        venv.create(made._place, with_pip=False, symlinks=True)
        if on is not None:
            made._link(on)
        wanted = f"{wheel}[{','.join(extras)}]" if extras else str(wheel)
        python = str(made._place / "bin/python")
        _pip(["--python", python, "install", "--quiet", "--no-compile", "--only-binary=:all:", wanted], made._tools)
        return made

    def _link(self, other: "Installation") -> None:
        """Take over the packages of another installation, as hard links, and its commands."""
        # with what Python has compiled there: Ray's processes would all do it again, at the same time
        shutil.copytree(other.packages, self.packages, copy_function=os.link, dirs_exist_ok=True)
        for command in (other._place / "bin").iterdir():
            mine = self._place / "bin" / command.name
            if not mine.exists() and command.is_file():
                mine.write_bytes(command.read_bytes().replace(bytes(other._place), bytes(self._place)))
                mine.chmod(0o755)

    @property
    def packages(self) -> Path:
        """Where packages are."""
        return next((self._place / "lib").glob("python*")) / "site-packages"

    def environment(self, **variables: str) -> dict[str, str]:
        """Return what a command gets: these variables, and nothing of this process but its language."""
        path = f"{self._place / 'bin'}:{self._tools}"
        return {"HOME": str(self._home), "PATH": path, "LANG": "C.UTF-8", "COLUMNS": "120", **variables}

    def run(self, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, in an empty directory; one that takes too long ends with all that it started."""
        process = subprocess.Popen(
            [shutil.which(command[0], path=self.environment()["PATH"]) or command[0], *command[1:]],
            cwd=self.directory, env=self.environment(**variables), stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        try:
            told, errors = process.communicate(timeout=_COMMAND_SECONDS)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
            told, errors = process.communicate(timeout=_ENDING_SECONDS)
            message = f"it took more than {_COMMAND_SECONDS} s: {told}{errors}"
            raise AssertionError(message) from None
        finally:
            kill_session(process.pid)
        return subprocess.CompletedProcess(command, process.returncode, told, errors)

    @contextmanager
    def running(self, *command: str, until: str, **variables: str) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
        """Run a command in the background, from when its output has a text on; yield it with its output's file."""
        told = self.directory.parent / f"{Path(command[-1]).name}.log"
        with told.open("wb") as output:
            process = subprocess.Popen(
                [self._place / "bin" / command[0], *command[1:]],
                cwd=self.directory, env=self.environment(**variables), stdin=subprocess.DEVNULL,
                stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        try:
            wait_for(lambda: until in told.read_text() or process.poll() is not None, until, patience=90)
            assert process.poll() is None, told.read_text()
            yield process, told
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait(60)
            kill_session(process.pid)


def exported(text: str) -> dict[str, str]:
    """Return the variables of the lines that a command prints for another terminal."""
    lines = [line for line in text.splitlines() if line.startswith("export ")]
    return dict(word.split("=", 1) for line in lines for word in shlex.split(line)[1:])


def _pip(arguments: list[str], tools: Path | None = None) -> None:
    """Run pip as it is configured here, for a place of its own; with `tools`, nothing else is on its PATH."""
    path = os.environ["PATH"] if tools is None else str(tools)
    ran = subprocess.run(
        [sys.executable, "-m", "pip", *arguments], cwd=ROOT, env={**os.environ, "PATH": path},
        capture_output=True, text=True, check=False, timeout=_INSTALL_SECONDS,
    )  # fmt: skip
    assert ran.returncode == 0, (ran.stdout + ran.stderr)[-3000:]
