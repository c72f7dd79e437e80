"""The OpenAPI document of a back end, made of the models. docs/backend.openapi.json is a copy of it."""

import inspect
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from conversation_actors.backend.models import (
    CONTEXT_PATH,
    CONVERSATIONS_PATH,
    DELIVERIES,
    MESSAGES_PATH,
    MOMENT,
    Context,
    ContextAsked,
    Delivery,
    Messages,
)
from conversation_actors.calls.record import SessionAgent, SessionLatency, SessionParticipant, SessionTool

VERSION = "1.0.0"
"""The version of the contract. A back end that is written for one of the same first number goes on to work."""
_ABOUT = """What a back end of your own is sent and asked by conversation-actors: see docs/backend.md.

Deliveries (POST with an `Idempotency-Key`) arrive at least once, and in order within a conversation: after any answer
but 2xx, or none, the same one comes again. Drop what you know by its key, or store it under its ids. Ids may have any
character.

A later version of the same first number may send more. Ignore fields that you do not know, and answer with 2xx to a
delivery of a `type` that you do not know, at any path: refused, it makes the rest of its conversation wait. Its `type`,
`at`, `conversation_id`, `life`, `call_id` and `tenant` are as in every delivery."""
_FORGOTTEN = """Forget what is there of the conversation and has one of these lives, or an `at` not after `before`.
Drop what is delivered later and has one of these lives, or such an `at`. What is of another life and happened after
`before` is a conversation that has begun anew: keep it."""
_REF = "#/components/schemas/{model}"
_MODELS: tuple[type[BaseModel], ...] = (*DELIVERIES.values(), Messages, ContextAsked, Context)
_PARTS = {part.__name__: part for part in (SessionAgent, SessionLatency, SessionParticipant, SessionTool)}
_CONVERSATION = tuple(
    {"name": name, "in": "query", "required": True, "schema": {"type": "string"}}
    for name in ("conversation_id", "tenant")
)
"""An id is unique in its tenant only."""
_DELETED = (
    {
        "name": "before",
        "in": "query",
        "required": True,
        "schema": {"type": "string", "pattern": MOMENT},
        "description": "When the deletion began: UTC, milliseconds, as `at`.",
    },
    {
        "name": "life",
        "in": "query",
        "schema": {"type": "array", "items": {"type": "string"}},
        "description": "Which lives were deleted, as far as anybody knows; repeated for each of them.",
    },
)
_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "schema": {"type": "string"},
    "description": "The same for every try. It is missing where nothing is tried again.",
}
_ANY = {"2XX": {"description": "Taken."}, "default": {"description": "Not taken: it comes again."}}


def document() -> dict[str, Any]:
    """Return the document, as JSON values."""
    _, schemas = models_json_schema([(model, "validation") for model in _MODELS], ref_template=_REF)
    paths: dict[str, dict[str, Any]] = {path: {"post": _delivery(path, model)} for path, model in DELIVERIES.items()}
    paths[MESSAGES_PATH]["get"] = _recalling()
    paths[CONVERSATIONS_PATH] = {"delete": _forgetting()}
    paths[CONTEXT_PATH] = {"post": _enriching()}
    return {
        "openapi": "3.1.0",
        "info": {"title": "A back end of conversations", "version": VERSION, "description": _ABOUT},
        "security": [{"token": []}, {}],
        "paths": paths,
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": {name: _plain(_whole(name, schema)) for name, schema in schemas["$defs"].items()},
        },
    }


def text() -> str:
    """Return the document as it is written to a file."""
    return json.dumps(document(), indent=2, ensure_ascii=False) + "\n"


def _delivery(path: str, model: type[Delivery]) -> dict[str, Any]:
    return {
        "operationId": _id_of("post", path),
        "summary": (inspect.getdoc(model) or "").partition("\n")[0],
        "parameters": [_KEY],
        "requestBody": _body(model),
        "responses": _ANY,
    }


def _recalling() -> dict[str, Any]:
    limit = {"name": "limit", "in": "query", "required": True, "schema": {"type": "integer", "minimum": 1}}
    return {
        "operationId": _id_of("get", MESSAGES_PATH),
        "summary": "The newest messages of a conversation, the oldest of them first; none if it is not known.",
        "parameters": [*_CONVERSATION, limit],
        "responses": _answers(Messages),
    }


def _forgetting() -> dict[str, Any]:
    return {
        "operationId": _id_of("delete", CONVERSATIONS_PATH),
        "summary": "Forget a conversation, which may be unknown: these lives, and what happened not after `before`.",
        "description": _FORGOTTEN,
        "parameters": [*_CONVERSATION, *_DELETED],
        "responses": {"2XX": {"description": "It is forgotten."}, "default": {"description": "It is not."}},
    }


def _enriching() -> dict[str, Any]:
    return {
        "operationId": _id_of("post", CONTEXT_PATH),
        "summary": "What the agent is to know for its answer. Nobody waits for it longer than a moment.",
        "requestBody": _body(ContextAsked),
        "responses": _answers(Context),
    }


def _id_of(method: str, path: str) -> str:
    return "_".join([method, *path.split("/")[2:]])


def _body(model: type[BaseModel]) -> dict[str, Any]:
    return {"required": True, "content": _content(model)}


def _answers(model: type[BaseModel]) -> dict[str, Any]:
    told = (inspect.getdoc(model) or "").partition("\n")[0]
    return {"200": {"description": told, "content": _content(model)}, "default": {"description": "No answer."}}


def _content(model: type[BaseModel]) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": _REF.format(model=model.__name__)}}}


def _whole(name: str, schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a schema with what older versions of pydantic do not say of a part that is a dataclass."""
    part = _PARTS.get(name)
    return schema if part is None else {"additionalProperties": True, "description": inspect.getdoc(part), **schema}


def _plain(schema: Any, *, is_schema: bool = True) -> Any:
    """Return a schema as its readers know JSON: without generated titles and Python's words."""
    match schema:
        case dict():
            return dict(_entries(schema, is_schema=is_schema))
        case list():
            return [_plain(one) for one in schema]
        case _:
            return schema


def _entries(schema: Mapping[str, Any], *, is_schema: bool) -> Iterator[tuple[str, Any]]:
    for name, value in schema.items():
        if is_schema and name == "title":
            continue
        if is_schema and name == "description":
            yield name, re.sub(r"\bNone\b", "null", " ".join(value.replace("``", "`").split()))
        else:
            # what is in `properties` has names of fields, which may be called as keywords are
            yield name, _plain(value, is_schema=not (is_schema and name == "properties"))
