"""What a node's owners write to one file, and what their processes are called."""

import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conversation_actors import Settings
from conversation_actors.runtime import actor, actor_name, owner_log
from conversation_actors.runtime.owner_log import OwnerFormatter, SharedFile
from conversation_actors.runtime.titles import shown_name, title_of

WRITER = """
import logging, sys
from pathlib import Path
from conversation_actors.runtime.owner_log import SharedFile
handler = SharedFile(Path(sys.argv[1]), most_bytes=4096, kept=1000)
sys.stdin.readline()
for number in range(int(sys.argv[3])):
    handler.emit(logging.makeLogRecord({"msg": f"{sys.argv[2]}:{number}:" + "x" * (number % 90)}))
"""


def record(message: str, **fields: Any) -> logging.LogRecord:
    """Make a record of this process."""
    return logging.getLogger("conversation_actors.x").makeRecord(
        "conversation_actors.x", logging.INFO, "f", 1, message, (), None, extra=fields
    )


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[SharedFile]:
    """Make a log file of small parts."""
    handler = SharedFile(tmp_path / "owners.log", most_bytes=200, kept=2)
    yield handler
    handler.close()


def test_many_processes_write_one_file(tmp_path: Path) -> None:
    """While they all rotate it, every line of each is there, whole and once."""
    path, lines = tmp_path / "owners.log", 300
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, path, str(number), str(lines)], stdin=subprocess.PIPE)
        for number in range(4)
    ]
    for one in writers:
        assert one.stdin is not None
        one.stdin.write(b"go\n")
        one.stdin.close()
    assert [one.wait(timeout=60) for one in writers] == [0] * 4
    files = [one for one in tmp_path.iterdir() if one.suffix != ".lock"]
    found = sorted(line for file in files for line in file.read_text().splitlines())
    assert found == sorted(f"{w}:{n}:" + "x" * (n % 90) for w in range(4) for n in range(lines))
    assert len(files) > 1


def test_old_files_go(shared: SharedFile, tmp_path: Path) -> None:
    """At most so many are kept: the newest ones, in order."""
    for number in range(50):
        shared.emit(record(f"{number:03} {'x' * 40}"))
    files = sorted(one.name for one in tmp_path.iterdir())
    assert files == ["owners.log", "owners.log.1", "owners.log.2", "owners.log.lock"]
    read = [(tmp_path / name).read_text().splitlines() for name in ("owners.log.2", "owners.log.1", "owners.log")]
    numbers = [int(line[:3]) for lines in read for line in lines]
    assert numbers == list(range(numbers[0], 50))
    assert all((tmp_path / name).stat().st_mode & 0o077 == 0 for name in files)


def test_nobody_waits_for_one_who_rotates(shared: SharedFile, tmp_path: Path) -> None:
    """A process that is frozen with the lock keeps no other one from writing; the file grows until it goes on."""
    import fcntl  # of this test only

    with (tmp_path / "owners.log.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for number in range(10):
            shared.emit(record(f"{number:03} {'x' * 40}"))
        assert len((tmp_path / "owners.log").read_text().splitlines()) == 10
    shared.emit(record("the next one"))
    assert (tmp_path / "owners.log").read_text() == "the next one\n"


def test_a_file_that_is_gone_comes_back(shared: SharedFile, tmp_path: Path) -> None:
    """Somebody tidies up: the next line begins a new file."""
    shared.emit(record("first"))
    (tmp_path / "owners.log").unlink()
    shared.emit(record("second"))
    assert (tmp_path / "owners.log").read_text() == "second\n"


def test_what_cannot_be_written_is_no_harm(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is told on standard error, as by any handler, and nothing is raised."""
    handler = SharedFile(tmp_path / "nowhere" / "owners.log")
    handler.emit(record("lost"))
    assert "FileNotFoundError" in capsys.readouterr().err


def test_a_line_says_whose_it_is() -> None:
    """Conversation, epoch, process; the epoch of the record itself comes first."""
    formatter = OwnerFormatter("support-42", Settings())
    early, own = json.loads(formatter.format(record("hello"))), json.loads(formatter.format(record("a", epoch=7)))
    assert (early["conversation"], early["epoch"], own["epoch"]) == ("support-42", None, 7)
    formatter.epoch = 3
    told = json.loads(formatter.format(record("hello", reason="x")))
    assert (told["epoch"], told["reason"], type(told["pid"])) == (3, "x", int)


@pytest.mark.parametrize("conversation_id", ["support-42", "a {b} %", 'say "hi"\\n', "Bücher", "👩‍🚀 1"])
def test_hashed_names_show_no_id(conversation_id: str) -> None:
    """Neither as a field nor in a key, an address, an error's text or a repr; other words stay as they are."""
    from urllib.parse import quote  # of this test only

    settings = Settings(hashed_names=True)
    formatter, name = OwnerFormatter(conversation_id, settings), shown_name(conversation_id, settings)
    fields = {
        "key": f"conv:default:{{{conversation_id}}}:meta",
        "reason": repr(ValueError(conversation_id)),
        "url": f"/conversations/{quote(conversation_id)}/x",
    }
    line = formatter.format(record(f"about {conversation_id}.", **fields, word=f"x{conversation_id}x"))
    told = json.loads(line)
    assert told["conversation"] == name
    assert told["key"] == f"conv:default:{{{name}}}:meta"
    assert told["url"] == f"/conversations/{name}/x"
    assert told["message"] == f"about {name}."
    assert conversation_id not in told["reason"]
    assert name in actor_name(conversation_id, settings)


def test_names_that_people_see() -> None:
    """The id; the tenant before it, unless it is the default."""
    assert shown_name("support-42", Settings()) == "support-42"
    assert shown_name("support-42", Settings(tenant="acme")) == "acme:support-42"
    assert shown_name("a", Settings(hashed_names=True)) != shown_name("a", Settings(hashed_names=True, tenant="acme"))


def test_titles() -> None:
    """Ray's prefix, the name, the epoch once it is known; what is too long for a title is cut between characters."""
    assert title_of("support-42", None) == "ray::conversation support-42"
    assert title_of("support-42", 3) == "ray::conversation support-42 epoch 3"
    for long in ("x" * 256, "ü" * 256, "👩" * 256):
        title = title_of(long, 12)
        assert title.endswith("… epoch 12")
        assert len(title.encode()) < 140


def test_a_title_that_cannot_be_shown_is_no_harm(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither when the actor begins, nor when it answers its first call: what it is called is nobody's answer."""

    class Title:
        """One that the system refuses."""

        def show(self, title: str) -> None:
            """Refuse."""
            raise OSError(title)

    monkeypatch.setattr(actor, "ProcessTitle", Title)
    monkeypatch.setattr(actor, "write_to_node", lambda _lines: None)
    signature = actor.Signature("c", Settings(redis_url="redis://host/0"))
    signature.show(1)
    assert "does not show whose it is" in caplog.text


def test_a_log_that_cannot_be_had_is_no_harm_to_a_pool(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nor to anything else that writes there: a constructor that raises would be the end of the actor, for ever."""

    def refuse() -> Path:
        message = "no such attribute in this Ray"
        raise AttributeError(message)

    monkeypatch.setattr(owner_log, "log_directory", refuse)
    owner_log.write_to_node(owner_log.NodeFormatter())
    assert "stay where they are" in caplog.text
