"""The OpenAPI document: the copy in docs/ is what the models say, and whole."""

import json
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

from conversation_actors.backend.models import Delivery, SessionRecorded
from conversation_actors.backend.openapi import document, text
from conversation_actors.calls import SessionRecord

COPY = Path(__file__).parents[3] / "docs" / "backend.openapi.json"


def references(value: Any) -> Iterator[str]:
    """Yield everything that a document refers to."""
    if isinstance(value, dict):
        for name, one in value.items():
            if name == "$ref" and isinstance(one, str):
                yield one
            else:
                yield from references(one)
    elif isinstance(value, list):
        for one in value:
            yield from references(one)


def test_the_copy_is_what_the_models_say() -> None:
    """`conversation-actors backend openapi > docs/backend.openapi.json` makes it."""
    assert COPY.read_text(encoding="utf-8") == text()


def test_every_schema_is_one_and_is_used() -> None:
    """Nothing is referred to that is not there, and nothing is there for nobody."""
    told = document()
    schemas = told["components"]["schemas"]
    for schema in schemas.values():
        Draft202012Validator.check_schema(schema)
    assert {one.removeprefix("#/components/schemas/") for one in references(told)} == set(schemas)


def test_every_operation_has_an_id_and_a_summary() -> None:
    """Of its own: generators of code make names of the ids."""
    operations = [one for path in document()["paths"].values() for one in path.values()]
    ids = [one["operationId"] for one in operations]
    assert len(set(ids)) == len(ids)
    assert all(one["summary"].endswith(".") for one in operations)


def test_names_of_fields_are_not_taken_for_keywords() -> None:
    """A field may be called `title` or `description`."""
    properties = document()["components"]["schemas"]["SessionAgent"]["properties"]
    assert set(properties) == {"role", "holder", "joined_at", "left_at", "end"}
    assert "title" not in json.dumps(properties)


def test_a_record_has_the_fields_of_a_session_record() -> None:
    """All of them, and what every delivery has."""
    assert set(SessionRecorded.model_fields) == {one.name for one in fields(SessionRecord)} | set(Delivery.model_fields)
