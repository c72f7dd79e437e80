"""What the worker's commands log: which lines, and in which form."""

import json
import logging
import signal
import warnings
from collections.abc import Iterator
from contextlib import suppress
from typing import cast

import pytest
from livekit.agents import JobProcess
from livekit.api import AccessToken

from agent_worker import cli
from agent_worker.worker import logs
from agent_worker.worker.logs import is_news, set_up
from agent_worker.worker.preparation import Preparation
from conversation_actors import ClusterUnavailableError, InvalidInputError


@pytest.fixture(autouse=True)
def _as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Give the root logger back as it was."""
    monkeypatch.delenv("AGENT_LOG_FORMAT", raising=False)
    root = logging.getLogger()
    levels = {name: logging.getLogger(name).level for name in logs._NOISY}
    handlers, level = root.handlers[:], root.level
    rays = logging.getLogger("ray")
    ray_handlers, propagates = rays.handlers, rays.propagate
    root.handlers = []
    yield
    rays.handlers, rays.propagate = ray_handlers, propagates
    root.handlers = handlers
    root.setLevel(level)
    for name, before in levels.items():
        logging.getLogger(name).setLevel(before)


def _logged(capsys: pytest.CaptureFixture[str], name: str = "agent_worker.x", level: int = logging.INFO) -> str:
    logging.getLogger(name).log(level, "health", extra={"url": "http://127.0.0.1:1/health"})
    return capsys.readouterr().err


def test_production_logs_json(capsys: pytest.CaptureFixture[str]) -> None:
    """One object a line."""
    set_up(is_production=True)
    told = json.loads(_logged(capsys))
    assert (told["level"], told["message"], told["url"]) == ("INFO", "health", "http://127.0.0.1:1/health")
    assert told["time"][4] == "-"
    assert told["time"][-6] in "+-"


def test_development_logs_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    """With date and zone, and the fields behind the message."""
    set_up()
    assert _logged(capsys).endswith(" INFO agent_worker.x health url=http://127.0.0.1:1/health\n")


@pytest.mark.parametrize(("given", "starts"), [("json", "{"), ("text", "2")])
def test_the_form_can_be_chosen(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, given: str, starts: str
) -> None:
    """By AGENT_LOG_FORMAT, whatever the command; another one is refused by its name."""
    monkeypatch.setenv("AGENT_LOG_FORMAT", given)
    for is_production in (True, False):
        set_up(is_production=is_production)
        assert _logged(capsys).startswith(starts)
    monkeypatch.setenv("AGENT_LOG_FORMAT", "xml")
    with pytest.raises(InvalidInputError, match="AGENT_LOG_FORMAT"):
        set_up()


@pytest.mark.parametrize(
    "name", ["httpx", "httpx2", "httpcore2.connection", "openai._base_client", "ray._private.worker"]
)
def test_requests_to_models_are_no_news(capsys: pytest.CaptureFixture[str], name: str) -> None:
    """Nor what else libraries tell of each of their steps; their warnings are."""
    set_up(level=logging.DEBUG)
    assert _logged(capsys, name) == ""
    assert "health" in _logged(capsys, name, logging.WARNING)
    assert is_news(logging.makeLogRecord({"name": "rayon", "levelno": logging.INFO}))


def test_who_wants_errors_only_gets_no_warnings(capsys: pytest.CaptureFixture[str]) -> None:
    """Nor those of libraries, which have a level of their own."""
    set_up(level=logging.ERROR)
    assert [_logged(capsys, name, logging.WARNING) for name in ("agent_worker.x", "ray.x", "asyncio")] == [""] * 3
    assert "health" in _logged(capsys, "ray.x", logging.ERROR)


def test_rays_warnings_are_lines_like_all_others(capsys: pytest.CaptureFixture[str]) -> None:
    """Also where Ray was imported before, and writes to standard error by itself."""
    rays = logging.getLogger("ray")
    rays.handlers, rays.propagate = [logging.StreamHandler()], False
    set_up(is_production=True)
    told = _logged(capsys, "ray._private.worker", logging.WARNING)
    assert json.loads(told)["message"] == "health"


def test_a_warning_that_every_call_brings_is_left_out() -> None:
    """LiveKit's own, of a handle; by no other name, and no other of LiveKit's."""
    told = "livekit_ffi::server:279:livekit_ffi::server - Attempted to drop unknown FFI handle: 7"
    for name, message, is_told in (("livekit", told, False), ("mine", told, True), ("livekit", "lost", True)):
        record = logging.makeLogRecord({"name": name, "levelno": logging.WARNING, "msg": message})
        assert is_news(record) is is_told


@pytest.mark.parametrize(
    ("arguments", "is_production"),
    [
        (["start"], True),
        (["work"], True),
        (["watch"], True),
        (["work", "--development"], False),
        (["dev"], False),
    ],
)
def test_which_commands_are_production(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str], *, is_production: bool
) -> None:
    """A worker that `dev` has started logs for people, as `dev` does."""
    told: list[bool] = []

    def end_here(**options: bool) -> None:
        told.append(options["is_production"])
        message = "no more is needed"
        raise ClusterUnavailableError(message)

    monkeypatch.setattr(logs, "set_up", end_here)
    for name, value in {"URL": "ws://127.0.0.1:1", "API_KEY": "key", "API_SECRET": "secret" * 6}.items():
        monkeypatch.setenv(f"LIVEKIT_{name}", value)
    with suppress(SystemExit):
        cli.main(arguments)
    assert told == [is_production]


async def _joined_at_once() -> None:
    """Join nothing."""


@pytest.mark.parametrize("place", ["command", "job"])
def test_the_secret_of_a_development_server_is_no_news(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each token that is made with `secret` would be a warning in every process; another short one stays one."""
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        if place == "command":
            set_up()
        else:
            Preparation(patience=0.0, join=_joined_at_once)(cast("JobProcess", None))
        AccessToken("devkey", "secret").to_jwt()
        assert not told
        AccessToken("key", "a short one").to_jwt()
    assert len(told) == 1


def test_what_every_worker_does_at_its_start_is_no_news() -> None:
    """LiveKit's lines about its plugins and its own port; that it is registered stays one."""
    said = ["plugin registered", "preloading plugins", "HTTP server listening on 127.0.0.1:8081", "registered worker"]
    records = [logging.LogRecord("livekit.agents", logging.INFO, "", 0, text, (), None) for text in said]
    assert [record.msg for record in records if is_news(record)] == ["registered worker"]
