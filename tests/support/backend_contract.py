"""Back ends to test, whose every request and answer is held against the OpenAPI document; the reference server."""

import itertools
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import cache
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, Self

import aiohttp
import jsonschema
from pydantic import SecretStr

from conversation_actors.settings import BackendSettings
from conversation_actors.webhooks.wire_text import moment

ROOT = Path(__file__).parents[2]
SERVER = ROOT / "examples" / "backend" / "server.py"
DOCUMENT = ROOT / "docs" / "backend.openapi.json"
TENANT, LIFE = "default", "life"
TOKEN = "a-token"
_ENDED = 20.0
_numbers = itertools.count(1)


class ReferenceServer:
    """``examples/backend/server.py`` in a process of its own; it may be killed and started again."""

    def __init__(self, directory: Path, *, token: str = TOKEN) -> None:
        """Nothing runs before it is entered. Its file and its log are in the directory."""
        self._directory, self._token = directory, token
        self._port = 0
        self.url = ""

    def __enter__(self) -> Self:
        """Start, and learn the address; a later start has the same one."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop."""
        self._process.terminate()
        self._wait()

    def start(self) -> None:
        """Start, with what it has kept."""
        command = [sys.executable, str(SERVER), "--port", str(self._port), "--database", "backend.db"]
        environment = {**os.environ, "BACKEND_TOKEN": self._token}
        with (self._directory / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, env=environment, cwd=self._directory, stdout=subprocess.PIPE, stderr=log
            )
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().decode().strip()
        assert self.url, (self._directory / "server.log").read_text()
        self._port = int(self.url.rpartition(":")[2])

    def kill(self) -> None:
        """End it without a chance to say goodbye."""
        self._process.kill()
        self._wait()

    def log(self) -> str:
        """Return what it has written to standard error."""
        return (self._directory / "server.log").read_text()

    @property
    def settings(self) -> BackendSettings:
        """Settings that lead to it."""
        return BackendSettings(url=SecretStr(self.url), token=SecretStr(self._token), private_networks=True)

    def _wait(self) -> None:
        self._process.wait(_ENDED)
        assert self._process.stdout is not None
        self._process.stdout.close()


def reference_module() -> ModuleType:
    """Return the reference server as a module of this process."""
    spec = spec_from_file_location("reference_server", SERVER)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def document() -> dict[str, Any]:
    """Return the OpenAPI document."""
    read: dict[str, Any] = json.loads(DOCUMENT.read_text())
    return read


def check(schema: Mapping[str, Any], value: Any) -> None:
    """Raise `jsonschema.ValidationError` if a value does not fit a schema of the document."""
    whole = {**schema, "components": document()["components"]}
    jsonschema.Draft202012Validator(whole, format_checker=jsonschema.FormatChecker()).validate(value)


def deliveries_of_document() -> list[str]:
    """Return the paths of the document that something is sent to as it happens."""
    return [
        path for path, item in document()["paths"].items()
        if any(one["name"] == "Idempotency-Key" for one in item.get("post", {}).get("parameters", ()))
    ]  # fmt: skip


class Speaker:
    """Speaks to a back end. What it asks and what it gets must be as the document says, unless it is told otherwise."""

    def __init__(self, session: aiohttp.ClientSession, url: str, tenant: str) -> None:
        self.session, self._url, self.tenant = session, url, tenant

    async def deliver(self, path: str, body: Mapping[str, Any], *, key: str = "") -> None:
        """Have it take a delivery."""
        headers = {"Idempotency-Key": key or f"evt_{next(_numbers)}"}
        status, _ = await self.ask("POST", path, body=body, headers=headers)
        assert 200 <= status < 300, status

    async def store(
        self, conversation_id: str, item_id: str, text: str = "Hello", *, key: str = "", **told: str
    ) -> None:
        """Have it store a message; `told` may have another `life`, `tenant` or `at`."""
        chosen = {"tenant": self.tenant, **told}
        await self.deliver("/v1/messages", stored(conversation_id, item_id, text, **chosen), key=key)

    async def remove(self, conversation_id: str, *ids: str) -> None:
        """Have it forget messages; without ids, all."""
        await self.deliver("/v1/messages/removed", removed(conversation_id, ids or None, tenant=self.tenant))

    async def messages(self, conversation_id: str, *, limit: int = 100, tenant: str = "") -> list[tuple[str, str]]:
        """Return ids and texts of its newest messages."""
        query = {"conversation_id": conversation_id, "limit": str(limit), "tenant": tenant or self.tenant}
        status, body = await self.ask("GET", "/v1/messages", query=query)
        assert status == 200
        return [(one["id"], one["text"]) for one in body["messages"]]

    async def delete(self, conversation_id: str, *lives: str, before: str = "") -> None:
        """Have it forget what is of these lives of a conversation, and what happened before; by default, up to now."""
        query = {"conversation_id": conversation_id, "tenant": self.tenant, "before": before or now(), "life": lives}
        status, _ = await self.ask("DELETE", "/v1/conversations", query=query)
        assert 200 <= status < 300, status

    async def context(self, identity: str | None) -> list[str]:
        """Return what it says for a turn of somebody's."""
        asked = {"conversation_id": "c", "tenant": self.tenant, "identity": identity, "text": "Hello", "item_id": "i"}
        status, body = await self.ask("POST", "/v1/context", body=asked)
        assert status == 200
        told: list[str] = body["context"]
        return told

    async def ask(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str | Sequence[str]] | None = None,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        fits: bool = True,
    ) -> tuple[int, Any]:
        """Send a request, and return the status and the JSON of its answer. With `fits`, the request must fit too."""
        operation = document()["paths"][path][method.lower()]
        if fits:
            _check_parameters(operation, {**(query or {}), **(headers or {})})
            if body is not None:
                check(operation["requestBody"]["content"]["application/json"]["schema"], body)
        sent: dict[str, Any] = {} if body is None else {"data": body} if isinstance(body, bytes) else {"json": body}
        async with self.session.request(method, self._url + path, params=query, headers=headers, **sent) as answer:
            read = await answer.read()
            return answer.status, _checked_answer(operation, answer.status, read)


@asynccontextmanager
async def speaking(url: str, *, token: str | None = TOKEN, tenant: str = TENANT) -> AsyncIterator[Speaker]:
    """Speak to a back end, as a tenant."""
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    async with aiohttp.ClientSession(headers=headers, timeout=aiohttp.ClientTimeout(total=30)) as session:
        yield Speaker(session, url, tenant)


def _check_parameters(operation: Mapping[str, Any], given: Mapping[str, str | Sequence[str]]) -> None:
    known = {one["name"]: one for one in operation.get("parameters", ())}
    assert set(given) <= set(known), set(given) - set(known)
    assert {name for name, one in known.items() if one.get("required")} <= set(given)
    for name, value in given.items():
        schema = known[name]["schema"]
        kind = schema.get("type")
        told = int(str(value)) if kind == "integer" else list(value) if kind == "array" else value
        check(schema, told)


def _checked_answer(operation: Mapping[str, Any], status: int, read: bytes) -> Any:
    responses = operation["responses"]
    told = next((responses[one] for one in (str(status), f"{status // 100}XX", "default") if one in responses), None)
    assert told is not None, f"the document has no answer {status}"
    content = told.get("content", {}).get("application/json")
    if content is None:
        return None
    body = json.loads(read)
    check(content["schema"], body)
    return body


def now() -> str:
    """Return the time, as a delivery tells it."""
    return moment(datetime.now(UTC))


def whose(
    conversation_id: str, kind: str, *, life: str = LIFE, tenant: str = TENANT, at: str | None = None
) -> dict[str, Any]:
    """Return what every delivery has; it happened just now, if `at` does not say otherwise."""
    return {
        "type": kind, "at": at or now(), "conversation_id": conversation_id, "life": life,
        "call_id": f"{life}.1", "tenant": tenant, "seq": next(_numbers),
    }  # fmt: skip


def stored(conversation_id: str, item_id: str, text: str, **told: str) -> dict[str, Any]:
    """Return the delivery of a person's message."""
    item = {"id": item_id, "type": "message", "role": "user", "content": [text], "created_at": 1_700_000_000.5}
    message = {
        "id": item_id, "item_type": "message", "role": "user", "text": text, "created_at": 1_700_000_000.5,
        "interrupted": False, "identity": "ada", "agent_role": None, "item": item,
    }  # fmt: skip
    return {**whose(conversation_id, "message.stored", **told), "message": message}


def removed(conversation_id: str, ids: Iterable[str] | None, *, tenant: str = TENANT) -> dict[str, Any]:
    """Return the delivery of a removal; None stands for all."""
    return {**whose(conversation_id, "messages.removed", tenant=tenant), "ids": None if ids is None else list(ids)}
