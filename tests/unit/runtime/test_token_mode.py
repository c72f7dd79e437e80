"""Who asks for Ray's token, and what is said where it is missing, before Ray itself tries."""

import os
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent import futures
from contextlib import ExitStack, contextmanager
from importlib import metadata
from pathlib import Path
from platform import python_version
from typing import Any

import grpc  # type: ignore[import-untyped]  # it has no types
import pytest
from ray._private import services

from conversation_actors.errors import (
    ClusterMisconfiguredError,
    ClusterUnavailableError,
    IncompatibleVersionError,
    RetryableError,
)
from conversation_actors.runtime import diagnosis, ray_environment
from conversation_actors.runtime.diagnosis import require_joinable
from conversation_actors.runtime.token_mode import choose_token_mode

HOST = "127.0.0.1"
ELSEWHERE = "192.0.2.77"
"""An address of nobody."""


class ControlStore(grpc.GenericRpcHandler):  # type: ignore[misc]  # it has no types
    """Answers as Ray's control store does: with its versions, to who brings its token."""

    def __init__(self, token: str | None, versions: dict[str, str]) -> None:
        """`token`: None where none is asked for."""
        self._token = token
        pairs = ", ".join(f'"{name}": "{value}"' for name, value in versions.items())
        self._answer = b"\n\x00\x12P{" + pairs.encode() + b"}"
        self.sent: list[str | None] = []

    def service(self, details: Any) -> Any:
        """Take the one call that is asked."""
        assert details.method == "/ray.rpc.InternalKVGcsService/InternalKVGet"
        sent = dict(details.invocation_metadata).get("authorization")
        self.sent.append(sent)

        def answer(request: bytes, context: Any) -> bytes:
            assert b"CLUSTER_METADATA" in request
            if self._token is not None and sent != f"Bearer {self._token}":
                context.abort(grpc.StatusCode.UNAUTHENTICATED, "InvalidAuthToken: Authentication token is missing")
            return self._answer

        return grpc.unary_unary_rpc_method_handler(answer)


@contextmanager
def a_head(token: str | None = None, **versions: str) -> Iterator[tuple[str, ControlStore]]:
    """Return a control store on a port; its versions are ours unless others are given."""
    ours = {"ray_version": metadata.version("ray"), "python_version": python_version()}
    store = ControlStore(token, ours | versions)
    server = grpc.server(futures.ThreadPoolExecutor(2), handlers=[store])
    port = server.add_insecure_port(f"{HOST}:0")
    server.start()
    try:
        yield f"{HOST}:{port}", store
    finally:
        server.stop(None).wait()


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a user without a token and without an opinion on them, whose Ray knows tokens."""
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_USE_TLS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    monkeypatch.setattr(ray_environment, "knows_tokens", lambda: True)
    return tmp_path


@pytest.fixture
def kept_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put RAY_AUTH_MODE back behind the test, also where it was not set."""
    monkeypatch.setenv("RAY_AUTH_MODE", "x")
    monkeypatch.delenv("RAY_AUTH_MODE")


def write_token(home: Path, token: str) -> Path:
    """Give the user a token, as Ray's own command does: readable for all."""
    path = home / ".ray" / "auth_token"
    path.parent.mkdir()
    path.write_text(token)
    path.chmod(0o644)
    return path


def at_a_distance(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the next address be another machine's."""
    monkeypatch.setattr(diagnosis, "reach", lambda *_: False)


# --- what a client is told -------------------------------------------------------------------------------------------


def test_a_cluster_that_asks_for_nothing_can_be_joined() -> None:
    """Same versions and no token: nothing is said."""
    with a_head() as (address, store):
        require_joinable(address)
    assert store.sent == [None]


def test_the_token_of_this_user_is_sent_on_this_machine(home: Path) -> None:
    """Nobody has to set anything where the head is here."""
    write_token(home, "right")
    with a_head("right") as (address, store):
        require_joinable(address)
    assert store.sent == ["Bearer right"]


def test_the_token_is_not_sent_elsewhere_unasked(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To another machine it goes where RAY_AUTH_MODE says so; the sentence names that variable."""
    write_token(home, "right")
    at_a_distance(monkeypatch)
    with a_head("right") as (address, store):
        with pytest.raises(ClusterMisconfiguredError, match="set RAY_AUTH_MODE=token") as refused:
            require_joinable(address)
        monkeypatch.setenv("RAY_AUTH_MODE", "token")
        require_joinable(address)
    assert store.sent == [None, "Bearer right"]
    assert not isinstance(refused.value, RetryableError)


def test_a_missing_token_is_told_with_what_to_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sentence names the file here, and the one there."""
    with a_head("right") as (address, _), pytest.raises(ClusterMisconfiguredError) as here:
        require_joinable(address)
    assert "there is none in ~/.ray/auth_token: copy ~/.ray/auth_token of the head's machine" in str(here.value)
    assert "RAY_AUTH_MODE" not in str(here.value)
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with a_head("right") as (address, _), pytest.raises(ClusterMisconfiguredError, match="it is disabled here"):
        require_joinable(address)


@pytest.mark.parametrize("variable", [None, "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"])
def test_another_token_is_told_with_its_place(
    home: Path, monkeypatch: pytest.MonkeyPatch, variable: str | None
) -> None:
    """Whichever of the three places it is from."""
    path = write_token(home, "wrong")
    if variable is not None:
        monkeypatch.setenv(variable, "wrong" if variable == "RAY_AUTH_TOKEN" else str(path))
    place = "RAY_AUTH_TOKEN" if variable == "RAY_AUTH_TOKEN" else "~/.ray/auth_token"
    with a_head("right") as (address, _), pytest.raises(ClusterMisconfiguredError, match=f"the token in {place}"):
        require_joinable(address)


@pytest.mark.parametrize("versions", [{"ray_version": "2.1.0"}, {"python_version": "3.8.1"}])
def test_another_version_is_told_with_both(versions: dict[str, str]) -> None:
    """Ray's or Python's: what the cluster has, and what this process has."""
    with a_head(**versions) as (address, _), pytest.raises(IncompatibleVersionError) as told:
        require_joinable(address)
    for version in (*versions.values(), metadata.version("ray"), python_version()):
        assert version in str(told.value)


def test_pythons_patch_release_matters_where_it_does_to_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """By default it does; Ray's own variable says otherwise."""
    patch = ".".join([*python_version().split(".")[:2], "99"])
    with a_head(python_version=patch) as (address, _):
        with pytest.raises(IncompatibleVersionError):
            require_joinable(address)
        monkeypatch.setenv("RAY_DEFAULT_PYTHON_VERSION_MATCH_LEVEL", "minor")
        require_joinable(address)


def test_a_head_that_is_just_starting_says_no_versions() -> None:
    """What it does not tell is not held against it."""
    with a_head() as (address, store):
        store._answer = b"\n\x00"
        require_joinable(address)


def test_an_older_ray_says_that_it_knows_no_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    """It could not send one."""
    monkeypatch.setattr(ray_environment, "knows_tokens", lambda: False)
    with a_head("right") as (address, _), pytest.raises(ClusterMisconfiguredError, match="here knows none"):
        require_joinable(address)


@pytest.mark.parametrize("reply", [b"-ERR unknown command\r\n", b"HTTP/1.1 400 Bad Request\r\n\r\n", b""])
def test_what_is_no_control_store_is_told(reply: bytes) -> None:
    """A Redis, a web server, a port that closes: the sentence names Ray's ports."""
    with ExitStack() as stack:
        listening = stack.enter_context(socket.create_server((HOST, 0)))

        def serve() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with connection:
                    connection.sendall(reply)

        threading.Thread(target=serve, daemon=True).start()
        address = f"{HOST}:{listening.getsockname()[1]}"
        with pytest.raises(ClusterMisconfiguredError, match=r"no Ray head's control store.*6379"):
            require_joinable(address)
        listening.shutdown(socket.SHUT_RDWR)


def test_a_grpc_server_of_another_kind_is_told() -> None:
    """As Ray's client server is one, whose port is easily taken for the head's."""
    server = grpc.server(futures.ThreadPoolExecutor(1))
    port = server.add_insecure_port(f"{HOST}:0")
    server.start()
    with pytest.raises(ClusterMisconfiguredError, match=f"ray://{HOST}:{port}"):
        require_joinable(f"{HOST}:{port}")
    server.stop(None).wait()


def test_a_hung_control_store_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """It listens and never answers: that may pass, so a retry is up to the caller."""
    monkeypatch.setattr(diagnosis, "SECONDS", 0.3)
    with socket.create_server((HOST, 0)) as listening:
        address = f"{HOST}:{listening.getsockname()[1]}"
        with pytest.raises(ClusterUnavailableError, match="does not answer"):
            require_joinable(address)


@pytest.mark.parametrize("address", ["head", "6379", "head:", "head:port", ":6379"])
def test_what_is_no_address_is_told(address: str) -> None:
    """In one sentence with the forms that there are; Ray would say it in one of its own, without them."""
    with pytest.raises(
        ClusterMisconfiguredError, match=r"RAY_ADDRESS.* is no address of a Ray cluster; write host:port"
    ):
        require_joinable(address)


def test_nobody_at_an_address_is_told() -> None:
    """A port without a listener, and a name without a machine."""
    with socket.socket() as taken:
        taken.bind((HOST, 0))  # and never listens: nobody else can
        with pytest.raises(ClusterUnavailableError, match="nobody listens"):
            require_joinable(f"{HOST}:{taken.getsockname()[1]}")
    with pytest.raises(ClusterUnavailableError, match="no machine is called nobody\\.invalid"):
        require_joinable("nobody.invalid:6379")


@pytest.mark.parametrize("address", ["local", "ray://head:10001"])
def test_what_is_no_plain_address_is_left_to_ray(address: str) -> None:
    """Nobody is asked."""
    require_joinable(address)


@pytest.mark.parametrize("address", [None, "auto"])
def test_without_an_address_it_is_what_ray_finds(monkeypatch: pytest.MonkeyPatch, address: str | None) -> None:
    """The one that runs here, or what is left of the last one, which is dead; of several Ray chooses."""
    running, last = set[str](), list[str | None]([None])
    monkeypatch.setattr(services, "find_gcs_addresses", lambda: running)
    monkeypatch.setattr(services, "find_bootstrap_address", lambda _directory: last[0])
    require_joinable(address)
    last[0] = f"{HOST}:1"
    with pytest.raises(ClusterUnavailableError, match=r"nobody listens.*\(RAY_ADDRESS is not set"):
        require_joinable(address)
    with a_head("right") as (running_address, _):
        running.add(running_address)
        with pytest.raises(ClusterMisconfiguredError, match=running_address):
            require_joinable(address)
        running.add(f"{HOST}:2")
        require_joinable(address)


def test_another_way_of_letting_people_in_is_left_to_ray(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ray has one for Kubernetes: nobody is asked, and nothing is said of tokens."""
    monkeypatch.setenv("RAY_AUTH_MODE", "k8s")
    with a_head("right") as (address, store):
        require_joinable(address)
        choose_token_mode([f"--address={address}"])
        choose_token_mode(["--head"])
    assert store.sent == []
    assert ray_environment.token_mode() == "k8s"
    assert capsys.readouterr().err == ""


# --- what a node does ------------------------------------------------------------------------------------------------


def test_a_head_that_goes_while_it_is_asked_is_no_wrong_port(monkeypatch: pytest.MonkeyPatch) -> None:
    """It restarts: the same address may be right a moment later."""
    with socket.create_server((HOST, 0)) as listening:
        port = listening.getsockname()[1]
        reach = diagnosis.reach

        def reach_and_go(address: str, *how: str) -> bool:
            is_here = reach(address, *how)
            listening.close()
            return is_here

        monkeypatch.setattr(diagnosis, "reach", reach_and_go)
        with pytest.raises(ClusterUnavailableError, match="nobody listens"):
            require_joinable(f"{HOST}:{port}")


@pytest.mark.usefixtures("kept_mode")
def test_a_head_asks_for_a_token_that_is_made(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It says so in one line; the token is nobody else's to read."""
    choose_token_mode(["--head", "--port=6379"])
    assert ray_environment.token_mode() == "token"
    path = home / ".ray" / "auth_token"
    assert len(path.read_text()) >= 32
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count("\n") == 1
    assert "RAY_AUTH_MODE=token" in told.err
    assert "~/.ray/auth_token" in told.err


@pytest.mark.usefixtures("kept_mode")
def test_a_token_that_is_there_stays_and_is_hidden_from_others(home: Path) -> None:
    """Ray's own command leaves it readable for every user of the machine."""
    path = write_token(home, "mine")
    choose_token_mode(["--head"])
    assert path.read_text() == "mine"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_head_does_as_it_is_told(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """RAY_AUTH_MODE comes first; that anybody may come is said."""
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    choose_token_mode(["--head"])
    assert ray_environment.token_mode() == "disabled"
    assert not (home / ".ray").exists()
    assert "may run code here" in capsys.readouterr().err


def test_a_head_of_an_old_ray_says_that_it_has_none(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its ports are open to all, and no token is made."""
    monkeypatch.setattr(ray_environment, "knows_tokens", lambda: False)
    choose_token_mode(["--head"])
    assert ray_environment.token_mode() is None
    assert not (home / ".ray").exists()
    assert "knows none" in capsys.readouterr().err


@pytest.mark.usefixtures("kept_mode")
def test_a_node_does_as_its_head_does(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where the head asks for a token it is sent, without a variable; where not, none is."""
    write_token(home, "right")
    with a_head() as (address, store):
        choose_token_mode([f"--address={address}"])
    assert ray_environment.token_mode() is None
    assert store.sent == [None]
    assert "asks for none" in capsys.readouterr().err
    with a_head("right") as (address, store):
        choose_token_mode(["--address", address, "--num-cpus=2"])
    assert ray_environment.token_mode() == "token"
    assert store.sent == [None, "Bearer right"]
    assert "~/.ray/auth_token" in capsys.readouterr().err


@pytest.mark.usefixtures("kept_mode")
def test_a_node_without_the_heads_token_is_not_started() -> None:
    """One sentence on how to copy it, and no Ray that tries for 22 s."""
    with a_head("right") as (address, _), pytest.raises(ClusterMisconfiguredError, match=r"copy ~/\.ray/auth_token"):
        choose_token_mode([f"--address={address}"])
    assert ray_environment.token_mode() is None


@pytest.mark.usefixtures("kept_mode")
def test_a_node_of_another_version_is_not_started(home: Path) -> None:
    """Also where the head asks for a token first."""
    write_token(home, "right")
    with a_head("right", ray_version="2.1.0") as (address, _), pytest.raises(IncompatibleVersionError):
        choose_token_mode([f"--address={address}"])


@pytest.mark.parametrize("arguments", [["--help"], ["--head", "--help"], [], ["--address=auto"], ["--address=x"]])
def test_what_ray_answers_itself_is_left_to_it(
    home: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    """Its help, and arguments that it refuses."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    choose_token_mode(arguments)
    assert not (home / ".ray").exists()


def test_the_help_begins_with_ours() -> None:
    """What this command adds to Ray's, then Ray's options; the command is called what was typed."""
    command = [sys.executable, "-m", "conversation_actors.cli", "start", "--help"]
    told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    ours, _, rays = told.partition("A head asks for this user's token")
    assert "Start a Ray node" in ours
    assert "--node-ip-address" in rays
    assert "Usage: conversation-actors start" in rays
    assert "Usage: ray" not in told


@pytest.mark.skipif(not ray_environment.knows_tokens(), reason="not on this platform: this Ray knows no tokens")
@pytest.mark.parametrize("token", [None, "wrong"])
def test_the_command_ends_with_one_sentence(home: Path, token: str | None) -> None:
    """Nothing of Ray's, no traceback, and exit code 1; in 22 s Ray would say it in 99 lines."""
    environment = {**os.environ, "HOME": str(home), **({"RAY_AUTH_TOKEN": token} if token else {})}
    with a_head("right") as (address, _):
        ended = subprocess.run(
            [sys.executable, "-m", "conversation_actors.cli", "start", f"--address={address}"],
            env=environment, capture_output=True, text=True, check=False, timeout=20,
        )  # fmt: skip
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith("conversation-actors: the Ray cluster at ")
    assert ended.stderr.count("\n") == 1


# --- the token's places ----------------------------------------------------------------------------------------------


def test_a_token_that_cannot_be_read_is_told(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory in its place, or bytes that are no text."""
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(home))
    with pytest.raises(ClusterMisconfiguredError, match="cannot be read"):
        ray_environment.token()
    (home / "token").write_bytes(b"\xff\xfe")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(home / "token"))
    with pytest.raises(ClusterMisconfiguredError, match="it is no text"):
        ray_environment.token()


def test_a_token_that_cannot_be_kept_is_told(home: Path) -> None:
    """A file where its directory should be."""
    (home / ".ray").write_text("")
    with pytest.raises(ClusterMisconfiguredError, match="cannot be"):
        ray_environment.ensure_token()


def test_two_that_make_a_token_share_one(home: Path) -> None:
    """Whoever is first has made it; nobody replaces it, and no draft stays."""
    threads = [threading.Thread(target=ray_environment.ensure_token) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [path.name for path in (home / ".ray").iterdir()] == ["auth_token"]


def test_a_token_is_not_in_its_repr(home: Path) -> None:
    """Logs and tracebacks show where it is, not what."""
    write_token(home, "secret")
    assert "secret" not in repr(ray_environment.token())


def test_which_ray_knows_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first that does is 2.52."""
    monkeypatch.undo()
    for version, knows in (("2.51.9", False), ("2.52.0", True), ("3.0.0rc1", True)):
        monkeypatch.setattr(metadata, "version", lambda _name, version=version: version)
        assert ray_environment.knows_tokens() is knows
