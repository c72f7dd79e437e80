"""An application's own server: found by its name, told what is wrong with it, and otherwise left as it is."""

import asyncio
import logging
import pickle
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self, cast

import pytest
from aiohttp import web
from livekit.agents import AgentServer, JobProcess
from pydantic import SecretStr

from agent_worker import cli
from agent_worker.development.agent_calls import AgentCalls
from agent_worker.development.page import PageServer
from agent_worker.development.reception import STARTING, Reception
from agent_worker.environment import REGISTRATION_VARIABLE, registration_from_environment, registration_variables
from agent_worker.settings import LiveKitSettings, WorkerSettings
from agent_worker.worker import preparation
from agent_worker.worker.application import begin, load_server
from agent_worker.worker.preparation import Preparation
from agent_worker.worker.registration import Registrar, Registration
from agent_worker.worker.server import WorkerOptions, make_server
from conversation_actors import ConversationClient, InvalidInputError
from tests.support.servers import wait_until

LIVEKIT = LiveKitSettings(url="ws://127.0.0.1:1", api_key="key", api_secret=SecretStr("s" * 32))
SERVER = """
from livekit.agents import AgentServer, JobContext, cli

server = AgentServer()

@server.rtc_session()
async def entrypoint(ctx: JobContext) -> None:
    await ctx.connect()

if __name__ == "__main__":
    cli.run_app(server)
"""
OPTIONS = """
from livekit.agents import JobContext, WorkerOptions, cli

def prewarm(process):
    process.userdata["warm"] = True

async def entrypoint(ctx: JobContext) -> None:
    await ctx.connect()

if __name__ == "__main__":
    import logging
    logging.getLogger(__name__).info("as a program")
    cli.run_app(WorkerOptions(entrypoint_fnc=entrypoint, prewarm_fnc=prewarm, agent_name="mine"))
"""
Write = Callable[..., Path]


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    """The command line sets the process's logging up, on a stream that ends with its test."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Write an application's module into a directory that is the current one; its modules are forgotten behind it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    before = set(sys.modules)

    def put(text: str, name: str = "my_agent.py") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    yield put
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.fixture
def _servers_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variables of servers that nobody connects to."""
    for name, value in {"URL": "ws://127.0.0.1:1", "API_KEY": "key", "API_SECRET": "s" * 32}.items():
        monkeypatch.setenv(f"LIVEKIT_{name}", value)
    monkeypatch.setenv("CONVERSATION_REDIS_URL", "redis://127.0.0.1:1/0")


# How it is found


@pytest.mark.parametrize("name", ["my_agent", "my_agent:server", "my_agent.py", "my_agent.py:server", "./my_agent.py"])
def test_the_servers_name(write: Write, name: str) -> None:
    """By module or by file, with its attribute or without; it is the module's own object."""
    write(SERVER)
    found = load_server(name)
    assert found is sys.modules["my_agent"].server


def test_a_file_elsewhere_in_a_package(write: Write) -> None:
    """Its module has the name that the application itself imports it by, and finds what lies beside it."""
    write("", "src/shop/__init__.py")
    write("NAME = 'shop'", "src/shop/words.py")
    path = write(SERVER + "\nfrom shop import words\n", "src/shop/voice.py")
    found = load_server(str(path))
    assert found is sys.modules["shop.voice"].server
    assert sys.modules["shop.voice"].words.NAME == "shop"


def test_a_file_in_a_package_imports_its_neighbours_by_their_own_names(write: Write) -> None:
    """As the interpreter lets it when the file is run as a script, which is how LiveKit's starter is run."""
    write("", "neighbours/__init__.py")
    write("NAME = 'beside'", "neighbours/words_beside.py")
    path = write(SERVER + "\nfrom words_beside import NAME\n", "neighbours/agent_beside.py")
    load_server(str(path))
    assert sys.modules["neighbours.agent_beside"].NAME == "beside"


def test_one_server_with_two_names_is_one(write: Write) -> None:
    """An alias makes no choice necessary."""
    write(SERVER + "\napp = server\n")
    assert load_server("my_agent") is sys.modules["my_agent"].server


@pytest.mark.parametrize(
    ("text", "name", "told"),
    [
        ("", "my_agent", "has no AgentServer"),
        (SERVER + "\nother = AgentServer()\n", "my_agent", "my_agent:server, my_agent:other"),
        (SERVER, "my_agent:servr", "there is none"),
        (SERVER, "my_agent:entrypoint", "--entrypoint my_agent:entrypoint"),
        (SERVER + "\ncli.run_app(server)\n", "my_agent", "__main__"),
        (SERVER + "\ntry:\n    cli.run_app(server)\nfinally:\n    pass\n", "my_agent.py", "__main__"),
        ("def main():\n    raise SystemExit(3)\nmain()\n", "my_agent", "exit code 3"),
        ("import no_such_package\n", "my_agent", "no_such_package"),
        ("1 / 0\n", "my_agent", "ZeroDivisionError"),
        ("def (\n", "my_agent", "SyntaxError"),
        ("", "no_such_module", "no_such_module"),
        ("", "no.such.module:server", "no.such.module:server"),
        ("", "no_such_file.py", "there is no file"),
        ("", "", "package.module"),
        ("", ":", "package.module"),
        ("", "..my_agent", "package.module"),
    ],
)
def test_what_is_wrong_with_it(
    write: Write, text: str, name: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """One sentence, exit code 2, before anything is connected."""
    write(text)
    assert cli.main(["work", name]) == cli.EXIT_USAGE
    said = capsys.readouterr()
    assert said.out == ""
    assert told in said.err
    assert len(said.err.strip().splitlines()) == 1


@pytest.mark.usefixtures("_servers_elsewhere")
def test_a_server_without_a_session_function(write: Write, capfd: pytest.CaptureFixture[str]) -> None:
    """One sentence that says so, and exit code 2: its supervisor does not start it again."""
    write("from livekit.agents import AgentServer\nserver = AgentServer()\n")
    assert cli.main(["work", "my_agent", "--development"]) == cli.EXIT_USAGE
    [told] = [line for line in capfd.readouterr().err.splitlines() if line.startswith("agent-worker: application:")]
    assert "No RTC session entrypoint" in told


def test_a_package_that_cannot_be_imported(write: Write) -> None:
    """It is told as well as what is wrong in the module itself."""
    write("1 / 0\n", "broken/__init__.py")
    write(SERVER, "broken/voice.py")
    with pytest.raises(InvalidInputError, match="ZeroDivisionError"):
        load_server("broken.voice")


def test_a_file_with_a_name_that_is_taken(write: Write) -> None:
    """A module that is imported already would be taken for it, without a word."""
    path = write(SERVER, "token.py")
    with pytest.raises(InvalidInputError, match="another module is called 'token'"):
        load_server(str(path))


async def test_what_goes_wrong_later_is_no_mistake_of_the_application() -> None:
    """A server that was started ends with what ended it, so that its supervisor starts it again."""
    server, away = AgentServer(), asyncio.Event()

    async def run(*, devmode: bool) -> None:
        assert devmode
        await away.wait()
        message = "cannot reach LiveKit"
        raise RuntimeError(message)

    server.run = run  # type: ignore[method-assign,assignment]  # on this one only
    serving = await begin(server, is_development=True)
    away.set()
    with pytest.raises(RuntimeError, match="cannot reach"):
        await serving


def test_options_that_only_the_program_makes(write: Write) -> None:
    """``cli.run_app(WorkerOptions(…))`` under the main guard is taken as it stands there; nothing else of it runs."""
    write(OPTIONS)
    server = load_server("my_agent", preload=["ray"])
    assert isinstance(server, AgentServer)
    assert server.setup_fnc is sys.modules["my_agent"].prewarm
    assert server.load_fnc is None


def test_options_of_the_module(write: Write) -> None:
    """`WorkerOptions` with a name, and a load of their own, which stays."""
    write(
        OPTIONS
        + "\ndef busy():\n    return 0.5\n\noptions = WorkerOptions(entrypoint_fnc=entrypoint, load_fnc=busy)\n",
    )
    server = load_server("my_agent")
    assert server.load_fnc is sys.modules["my_agent"].busy


def test_a_program_that_makes_its_options_from_its_arguments(write: Write) -> None:
    """What only the program would know is not guessed."""
    write(
        OPTIONS.replace('agent_name="mine"', "agent_name=name").replace(
            "import logging\n", "name = 'x'\n    import logging\n"
        )
    )
    with pytest.raises(InvalidInputError, match="has no AgentServer"):
        load_server("my_agent")


# What is put beside it


def prewarm(process: JobProcess) -> None:
    """An application's setup; counts its runs."""
    process.userdata["runs"] = process.userdata.get("runs", 0) + 1


def fail(_process: JobProcess) -> None:
    """An application's setup that fails."""
    message = "no weights"
    raise LookupError(message)


def process() -> JobProcess:
    """A job's process, as LiveKit gives it to a setup."""
    return cast("JobProcess", SimpleNamespace(userdata={}))


@pytest.fixture
def _default_sigterm() -> Iterator[None]:
    """SIGTERM as it was, behind the test."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def test_the_applications_server_stays_what_it_is() -> None:
    """Its load is its own, its setup runs inside of ours; where LiveKit is comes from the settings."""

    def load(_server: AgentServer) -> float:
        return 0.25

    server = AgentServer(setup_fnc=prewarm, load_fnc=load)
    made = make_server(WorkerOptions(application=server, livekit=LIVEKIT, worker=WorkerSettings(most_calls=3)))
    assert made is server
    assert made.load_fnc is load
    assert made.setup_fnc == Preparation(prewarm)


def test_the_operator_may_count_calls() -> None:
    """Where the application has no load of its own and the operator wants it; else the load is LiveKit's."""
    plain = make_server(WorkerOptions(application=AgentServer(), livekit=LIVEKIT, worker=WorkerSettings()))
    assert plain.load_fnc is None
    counted = make_server(
        WorkerOptions(application=AgentServer(), livekit=LIVEKIT, worker=WorkerSettings(most_calls=3))
    )
    assert counted.load_fnc is not None


@pytest.mark.usefixtures("_default_sigterm")
def test_their_setup_runs_once_and_ours_beside_it() -> None:
    """In one process, whoever takes longer; a SIGTERM to the whole group does not end the calls. It can be pickled."""
    joined = threading.Event()

    async def join() -> None:
        joined.set()

    one = process()
    replace(pickle.loads(pickle.dumps(Preparation(prewarm))), join=join)(one)
    assert one.userdata == {"runs": 1}
    assert joined.is_set()
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN


async def test_a_process_is_prepared_when_it_has_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    """Entering a client only begins to join, which the first call of a process is not to wait for."""
    joined: list[bool] = []

    class Client(ConversationClient):
        async def __aenter__(self) -> Self:
            return self

        async def join_cluster(self) -> None:
            joined.append(True)

    monkeypatch.setattr(preparation, "ConversationClient", Client)
    await preparation.join_cluster()
    assert joined == [True]


@pytest.mark.usefixtures("_default_sigterm")
def test_a_cluster_that_does_not_answer_delays_a_process_for_a_moment() -> None:
    """LiveKit throws a process away that takes too long: it is ready after five seconds, unless theirs takes longer."""
    assert preparation.PATIENCE_SECONDS == 5.0
    ended = threading.Event()

    async def join() -> None:
        await asyncio.to_thread(ended.wait, 30)

    one, started = process(), time.monotonic()
    Preparation(prewarm, patience=0.05, join=join)(one)
    try:
        assert time.monotonic() - started < 5
        assert one.userdata == {"runs": 1}
    finally:
        ended.set()


@pytest.mark.usefixtures("_default_sigterm")
def test_a_setup_that_takes_long_is_not_made_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of LiveKit's ten seconds for a process a setup of six leaves less than our five."""
    ended, waited = threading.Event(), list[float]()

    async def join() -> None:
        await asyncio.to_thread(ended.wait, 30)

    def slow(_process: JobProcess) -> None:
        time.sleep(0.05)

    monkeypatch.setattr(threading.Thread, "join", lambda _self, timeout: waited.append(timeout))
    try:
        Preparation(slow, patience=0.02, join=join)(process())
    finally:
        ended.set()
    assert waited == [0.0]


@pytest.mark.usefixtures("_default_sigterm")
def test_what_their_setup_raises_is_theirs() -> None:
    """LiveKit sees it, as it would without us; that Ray is away is only logged."""

    async def join() -> None:
        message = "no cluster"
        raise OSError(message)

    Preparation(join=join)(process())
    with pytest.raises(LookupError, match="no weights"):
        Preparation(fail, join=join)(process())


# By which name its agent is asked for


@pytest.mark.parametrize(
    ("told", "name"),
    [({"agent_name": "mine", "worker_type": "JT_ROOM"}, "mine"), ({"worker_type": "JT_ROOM"}, "")],
)
async def test_a_worker_is_asked_for_its_agents_name(tmp_path: Path, told: dict[str, Any], name: str) -> None:
    """By what LiveKit's server serves about a worker, when it is registered; a name that is not told is none."""

    async def answer(_request: web.Request) -> web.Response:
        return web.json_response(told)

    app = web.Application()
    app.router.add_get("/worker", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    registered(runner.addresses[0][1], tmp_path / "told.json", otherwise="other")
    try:
        assert await written(tmp_path / "told.json") == Registration("AW_1", name)
    finally:
        await runner.cleanup()


async def test_a_worker_that_does_not_answer(tmp_path: Path) -> None:
    """The name that the operator gave is the best guess."""
    registered(1, tmp_path / "told.json", otherwise="other")
    assert await written(tmp_path / "told.json") == Registration("AW_1", "other")


def registered(port: int, path: Path, *, otherwise: str) -> None:
    """A worker that LiveKit's server has just taken on."""
    server = AgentServer()
    running = SimpleNamespace(worker_info=SimpleNamespace(http_port=port), on=server.on)
    Registrar(cast("AgentServer", running), path, agent_name=None, otherwise=otherwise).start()
    server.emit("worker_registered", "AW_1", None)


async def written(path: Path) -> Registration | None:
    """What was written, when it is."""

    async def is_written() -> bool:
        return Registration.read(path) is not None

    await wait_until(is_written, "the worker to tell", patience=10)
    return Registration.read(path)


@asynccontextmanager
async def reception(**options: Any) -> AsyncIterator[tuple[Reception, PageServer, Path, list[str]]]:
    """What a developer is told, and the file in which a worker tells that it is registered."""
    lines: list[str] = []
    desk = Reception("wss://key:secret@livekit.example:7880/", lines.append, **options)

    async def call(_room: str) -> None:
        pass

    page, calls = PageServer("ws://127.0.0.1:1", "key", "s" * 32, "", key="k"), AgentCalls(call, lambda: desk.is_open)
    async with page, desk.following(page, calls) as variables:
        yield desk, page, Path(variables[REGISTRATION_VARIABLE]), lines


async def test_the_page_is_told_when_calls_reach_the_worker() -> None:
    """Its address is written once, when the worker is registered; the name is that of the worker that runs now."""
    async with reception() as (desk, page, path, lines):
        assert (Registration.read(path), desk.is_open) == (None, False)
        for name in ("first", "second", ""):
            Registration("AW_1", name).write(path)

            async def is_told(wanted: str = name) -> bool:
                return len(lines) > 1 and page.agent_name == wanted

            await wait_until(is_told, "the page to be told", patience=10)
        assert desk.is_open
        assert lines == [STARTING, f"Talk to the agent: {page.url}"]


async def test_a_worker_that_is_not_registered_is_spoken_of() -> None:
    """Every while, with the server that has to take it on, and without what is secret in that address."""
    async with reception(reminder=0.01) as (_, _, path, lines):

        async def is_told() -> bool:
            return len(lines) > 2

        await wait_until(is_told, "two reminders", patience=10)
        told = "the LiveKit server at wss://livekit.example:7880 has no worker of ours yet."
        assert lines[:3] == [STARTING, f"Still starting after 0.01 s: {told}", f"Still starting after 0.02 s: {told}"]
        Registration("AW_1", "").write(path)

        async def is_open() -> bool:
            return lines[-1].startswith("Talk")

        await wait_until(is_open, "the page's address", patience=10)


async def test_a_worker_that_was_killed_takes_no_calls() -> None:
    """Whatever it has written: whoever waits meanwhile waits for a worker, and not for an agent."""
    async with reception() as (desk, _, path, lines):
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", "input()", stdin=asyncio.subprocess.PIPE)
        Registration("AW_1", "", process.pid).write(path)

        async def is_told() -> bool:
            return len(lines) > 1

        await wait_until(is_told, "the page to be told", patience=10)
        before = desk.is_open
        process.kill()
        await process.wait()
        assert (before, desk.is_open) == (True, False)


def test_where_a_worker_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the file that whoever starts it names; else nobody wants to know."""
    monkeypatch.delenv(REGISTRATION_VARIABLE, raising=False)
    assert registration_from_environment() is None
    [(name, value)] = registration_variables("told.json").items()
    monkeypatch.setenv(name, value)
    assert registration_from_environment() == "told.json"


def test_a_name_that_somebody_gave(monkeypatch: pytest.MonkeyPatch) -> None:
    """The default name is ours, and no application's."""
    monkeypatch.delenv("LIVEKIT_AGENT_NAME", raising=False)
    assert LiveKitSettings().given_agent_name == ""
    monkeypatch.setenv("LIVEKIT_AGENT_NAME", "mine")
    assert LiveKitSettings().given_agent_name == "mine"


def test_variables_of_livekits_starter(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """``.env.local`` is read too, and beats ``.env``; the environment beats both."""
    for name in ("URL", "API_KEY", "API_SECRET"):
        monkeypatch.delenv(f"LIVEKIT_{name}", raising=False)
    write("LIVEKIT_URL=ws://one\nLIVEKIT_API_KEY=one\n", ".env")
    write("LIVEKIT_URL=ws://two\nLIVEKIT_API_SECRET=two\n", ".env.local")
    assert LiveKitSettings().require() == ("ws://two", "one", "two")
    monkeypatch.setenv("LIVEKIT_URL", "ws://three")
    assert LiveKitSettings().require()[0] == "ws://three"
