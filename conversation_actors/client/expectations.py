"""Who is expected in a room, and why: what stands beside the signs of life from a call until somebody comes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from conversation_actors.store import Place
from conversation_actors.values import check_id, decode, encode, refuse

EXPECTATION_BYTES = 8 << 10
"""Bytes of one expectation, in its stored form."""


@dataclass(frozen=True, slots=True)
class Expectation:
    """Somebody was called to a room, by the name that agents are called by there; `told` is what it is there for.

    `call` is the id of that very call, once it is known: in LiveKit, of the dispatch.
    """

    room: str
    agent_name: str
    told: Mapping[str, Any]
    call: str = ""
    is_declined: bool = False
    """Who came could not take it, and has gone again."""
    token: str = field(default_factory=lambda: uuid4().hex, repr=False)


def place_of(room: object, agent_name: object) -> Place:
    """Check the names of a room and of an agent."""
    return Place(check_id(room, "room"), "" if agent_name == "" else check_id(agent_name, "agent_name"))


def check_expectation(value: object) -> Expectation:
    """Return an expectation as it is. Raises `InvalidInputError` for anything else."""
    if not isinstance(value, Expectation):
        refuse("expectation", f"expected the Expectation that was made, got {type(value).__name__}")
    return value


def read_expectation(room: str, agent_name: str, token: str, data: bytes) -> Expectation | None:
    """Return a stored expectation; None for what another program, or a newer version, has written in another form."""
    try:
        fields = decode(data)
        told, call = fields["told"], fields["call"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    if not (isinstance(told, dict) and isinstance(call, str)):
        return None
    return Expectation(room, agent_name, told, call, fields.get("is_declined") is True, token)


def written(expectation: Expectation) -> bytes:
    """Return what is stored of an expectation."""
    fields = {"told": expectation.told, "call": expectation.call, "is_declined": expectation.is_declined}
    return encode(fields, "told", limit=EXPECTATION_BYTES)
