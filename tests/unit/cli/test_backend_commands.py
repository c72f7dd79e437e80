"""The commands of a back end: the document, and what is wrong with the one that is configured."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from aiohttp import web
from typer.testing import CliRunner

from conversation_actors.backend.openapi import document
from conversation_actors.cli import backend_check
from conversation_actors.cli.app import app
from conversation_actors.errors import BackendUnavailableError, InvalidInputError
from conversation_actors.settings import BackendSettings
from conversation_actors.sources.groups import all_names

TOKEN = "token-that-nobody-may-see"
SWITCHES = [name for name, field in BackendSettings.model_fields.items() if field.annotation is bool]


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing is configured: a back end can be checked before there is an archive."""
    monkeypatch.chdir(tmp_path)
    for name in all_names():
        monkeypatch.delenv(name, raising=False)


def checked(monkeypatch: pytest.MonkeyPatch, answer: Callable[[web.Request], web.StreamResponse]) -> None:
    """Check a back end on a port of its own that answers so."""

    async def handle(request: web.Request) -> web.StreamResponse:
        return answer(request)

    async def run() -> None:
        application = web.Application()
        application.router.add_route("*", "/{rest:.*}", handle)
        runner = web.AppRunner(application, shutdown_timeout=0.1)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            monkeypatch.setenv("CONVERSATION_BACKEND_URL", f"http://127.0.0.1:{runner.addresses[0][1]}/base/")
            await backend_check.run()
        finally:
            await runner.cleanup()

    for name, value in {"TOKEN": TOKEN, "PRIVATE_NETWORKS": "true", "RECALL_TIMEOUT": "60"}.items():
        monkeypatch.setenv(f"CONVERSATION_BACKEND_{name}", value)
    asyncio.run(run())


def test_the_document_is_printed() -> None:
    """And nothing beside it."""
    told = CliRunner().invoke(app, ["backend", "openapi"])
    assert json.loads(told.stdout) == document()


def test_without_a_back_end_there_is_nothing_to_check() -> None:
    """The sentence names the variable."""
    with pytest.raises(InvalidInputError, match="CONVERSATION_BACKEND_URL"):
        asyncio.run(backend_check.run())


@pytest.mark.parametrize("name", SWITCHES)
def test_whatever_is_asked_of_it_it_can_be_checked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """Also what has no effect without a back end."""
    monkeypatch.setenv(f"CONVERSATION_BACKEND_{name.upper()}", "true")
    checked(monkeypatch, lambda _: web.json_response({"messages": []}))
    assert "answers as it should" in capsys.readouterr().out


def test_one_that_answers_as_it_should_is_well(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is asked with its token, below its base, for a conversation that there is not, of the tenant."""
    monkeypatch.setenv("CONVERSATION_TENANT", "acme")
    asked: list[web.Request] = []

    def answer(request: web.Request) -> web.StreamResponse:
        asked.append(request)
        return web.json_response({"messages": []})

    checked(monkeypatch, answer)
    (request,) = asked
    assert (request.method, request.path, request.headers["Authorization"]) == (
        "GET", "/base/v1/messages", f"Bearer {TOKEN}",
    )  # fmt: skip
    assert request.query["conversation_id"]
    assert request.query["tenant"] == "acme"
    told = capsys.readouterr().out
    assert "answers as it should, with its token" in told
    assert TOKEN not in told


KNOWN = {"messages": [{"id": "1", "item_type": "message", "role": "user", "text": "Hello"}]}


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (lambda _: web.Response(status=401), "answered 401"),
        (lambda _: web.Response(text="<html>"), "does not fit"),
        (lambda _: web.json_response({"messages": [{"id": 7}]}), "does not fit"),
        (lambda _: web.json_response(KNOWN), "has messages of a conversation that there is not"),
    ],
)
def test_what_is_wrong_is_told_in_one_sentence(
    answer: Callable[[web.Request], web.StreamResponse], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the host, and without path, token or content."""
    with pytest.raises(BackendUnavailableError, match=reason) as refused:
        checked(monkeypatch, answer)
    told = str(refused.value)
    assert "http://127.0.0.1:" in told
    assert not any(secret in told for secret in (TOKEN, "base", "Hello", "html"))
