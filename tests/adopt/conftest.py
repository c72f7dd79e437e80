"""One Ray cluster, LiveKit server and model for all calls, a Redis for each module; workers of one shape at a time."""

from collections.abc import Generator, Iterator

import pytest

from tests.adopt.model import Model
from tests.adopt.shapes import Shape
from tests.adopt.stage import Stage, Workers
from tests.cluster.conftest import server_binary
from tests.support.livekit_server import LiveKitServer, livekit_server_missing
from tests.support.ray_cluster import RayCluster
from tests.support.servers import Server

_LOG_TAIL = 12_000


@pytest.fixture(scope="session")
def livekit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveKitServer]:
    """The LiveKit server; the workers of other shapes have ended when a shape's agents are dispatched."""
    if missing := livekit_server_missing():
        pytest.skip(missing)
    with LiveKitServer(tmp_path_factory.mktemp("adopt-livekit")) as server:
        yield server


@pytest.fixture(scope="session")
def model() -> Iterator[Model]:
    """The model, which has the rules of every shape that was started."""
    with Model() as started:
        yield started


@pytest.fixture(scope="session")
def cluster() -> Iterator[RayCluster]:
    """The Ray cluster: owners of the modules before are in it, each with the Redis of its module."""
    with RayCluster() as started:
        yield started


@pytest.fixture(scope="module")
def stage(
    livekit: LiveKitServer, model: Model, cluster: RayCluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    """The servers; the Redis is a module's own, as a test may look at all that it holds."""
    directory = tmp_path_factory.mktemp("adopt")
    with Server(server_binary(), directory / "redis") as redis:
        yield Stage(redis, cluster, livekit, model, directory)


@pytest.fixture(scope="module")
def workers(stage: Stage, request: pytest.FixtureRequest) -> Iterator[Workers]:
    """The workers of the shape that the test names; they end when the next shape comes."""
    shape: Shape = request.param
    workers = Workers(stage, shape)
    try:
        yield workers
    finally:
        workers.stop()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failure shows what the workers have logged."""
    report = yield
    workers = getattr(item, "funcargs", {}).get("workers")
    if report.failed and isinstance(workers, Workers):
        report.sections.append(("log of the workers", workers.log()[-_LOG_TAIL:]))
    return report
