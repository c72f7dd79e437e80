"""What a whole call needs: a LiveKit server, Redis and Ray, each once a session; rooms are a test's own."""

import secrets
from collections.abc import AsyncIterator, Generator, Iterator
from pathlib import Path

import pytest

from conversation_actors import ConversationClient, Settings
from tests.cluster.conftest import cluster, conversation_id, own_redis, redis, session_cluster
from tests.e2e.calls import SHORT_CALL
from tests.e2e.scene import Scene
from tests.support.livekit_server import LiveKitServer, livekit_server_missing
from tests.support.netns import SecondHost, namespaces_missing
from tests.support.observation import make_settings
from tests.support.ray_cluster import RayCluster, program_environment
from tests.support.servers import Server
from tests.support.workers import OfflineModels, WorkerProcess

__all__ = ["cluster", "conversation_id", "own_redis", "redis", "session_cluster"]
_LOG_TAIL = 6000
_COMMON_AGENT = f"agent-{secrets.token_hex(4)}"


@pytest.fixture(scope="session")
def livekit_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveKitServer]:
    """The session's LiveKit server. Tests that hurt a server take `own_livekit_server`."""
    if missing := livekit_server_missing():
        pytest.skip(missing)
    with LiveKitServer(tmp_path_factory.mktemp("livekit")) as server:
        yield server


@pytest.fixture
def own_livekit_server(tmp_path: Path) -> Iterator[LiveKitServer]:
    """A LiveKit server of the test's own, never one from elsewhere."""
    if missing := livekit_server_missing(local=True):
        pytest.skip(missing)
    with LiveKitServer(tmp_path / "livekit") as server:
        yield server


@pytest.fixture
def second_host() -> Iterator[SecondHost]:
    """A host whose network can be cut: for a `DistantCaller`."""
    if missing := namespaces_missing():
        pytest.skip(missing)
    with SecondHost() as host:
        yield host


@pytest.fixture
def reachable_livekit_server(tmp_path: Path, second_host: SecondHost) -> Iterator[LiveKitServer]:
    """A LiveKit server of the test's own, for this machine and the second host."""
    if missing := livekit_server_missing(local=True):
        pytest.skip(missing)
    with LiveKitServer(tmp_path / "livekit", address=second_host.address, interface=second_host.interface) as server:
        yield server


@pytest.fixture
def room(conversation_id: str) -> str:
    """A room that no other test has."""
    return f"room-{conversation_id}"


@pytest.fixture(scope="session")
def worker_environment(livekit_server: LiveKitServer, redis: Server, session_cluster: RayCluster) -> dict[str, str]:
    """The environment of an agent's worker: the session's LiveKit, Redis and Ray."""
    return program_environment(
        **livekit_server.env,
        CONVERSATION_REDIS_URL=redis.url,
        RAY_ADDRESS=session_cluster.address,
        LIVEKIT_AGENTS_PRELOAD_LOCAL_INFERENCE="0",
    )


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OfflineModels]:
    """The offline models, which follow the short call."""
    with OfflineModels(tmp_path_factory.mktemp("models"), transcript=SHORT_CALL) as models:
        yield models


@pytest.fixture(scope="session")
def common_worker(
    worker_environment: dict[str, str], models: OfflineModels, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[WorkerProcess]:
    """A worker for the tests that do it no harm: starting one takes ten seconds."""
    environment = {**worker_environment, **models.environment, "LIVEKIT_AGENT_NAME": _COMMON_AGENT}
    with WorkerProcess(tmp_path_factory.mktemp("worker"), environment) as worker:
        yield worker


@pytest.fixture
def settings(redis: Server, cluster: RayCluster) -> Settings:
    """What this process reads the conversations with."""
    return make_settings(redis.url, cluster.address)


@pytest.fixture
async def scene(
    livekit_server: LiveKitServer,
    settings: Settings,
    models: OfflineModels,
    worker_environment: dict[str, str],
    request: pytest.FixtureRequest,
) -> AsyncIterator[Scene]:
    """The test's call; its workers end behind it."""
    fixture = request.getfixturevalue
    async with ConversationClient(settings) as client:
        scene = Scene(
            server=livekit_server,
            settings=settings,
            client=client,
            models=models,
            directory=fixture("tmp_path"),
            room=fixture("room"),
            environment=worker_environment,
            figures=request.node.user_properties,
        )
        yield scene
        for worker in scene.workers:
            worker.stop()


@pytest.fixture
def common_scene(scene: Scene, common_worker: WorkerProcess) -> Scene:
    """The test's call, taken by the worker that others use too."""
    assert common_worker.process.poll() is None
    scene.agent_name = _COMMON_AGENT
    return scene


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failure shows what the LiveKit servers it used have logged."""
    report = yield
    if report.failed:
        for name, value in getattr(item, "funcargs", {}).items():
            if isinstance(value, LiveKitServer):
                report.sections.append((f"log of {name}", value.log()[-_LOG_TAIL:]))
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show what tests have measured along the way."""
    reports = [*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")]
    measured = [
        (report.nodeid, *figure) for report in reports if report.when == "call" for figure in report.user_properties
    ]
    if measured:
        terminalreporter.section("measured")
    for nodeid, what, figure in measured:
        terminalreporter.line(f"{figure}  {what}  ({nodeid.rpartition('::')[2]})")
