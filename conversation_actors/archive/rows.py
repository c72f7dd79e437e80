"""Rows of one conversation, apart from any database: what an export, an import, a backup and a restore pass on.

A row has the kind of its table, and the columns that mean the same in every database. Numbers that a database has given
by itself are not among them: the place of a row says which life it is of.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

LIFE, GAP, ENTRY, SUPERSEDED, ITEM = "life", "gap", "entry", "superseded", "item"
CHECKPOINT, PICTURE = "checkpoint", "picture"

Column = tuple[type, bool]
"""The type of a column, and whether it may be null."""

_ENTRY: Mapping[str, Column] = {
    "seq": (int, False),
    "epoch": (int, False),
    "at": (float, False),
    "event": (str, False),
    "data": (bytes, False),
}

COLUMNS: Mapping[str, Mapping[str, Column]] = MappingProxyType(
    {
        LIFE: {
            "life": (str, False),
            "start": (int, False),
            "seq": (int, False),
            "epoch": (int, False),
            "owner": (str, False),
            "lineage": (str, False),
            "created_at": (float, False),
            "active_at": (float, False),
            "deleted_at": (float, True),
        },
        GAP: {
            "from_seq": (int, False),
            "to_seq": (int, True),
            "reason": (str, False),
            "noted_at": (float, False),
        },
        ENTRY: _ENTRY,
        SUPERSEDED: {**_ENTRY, "noted_at": (float, False)},
        ITEM: {
            "item_id": (str, False),
            "seq": (int, False),
            "place": (int, False),
            "is_evicted": (bool, False),
            "type": (str, False),
            "role": (str, True),
            "call_id": (str, True),
            "data": (bytes, False),
        },
        CHECKPOINT: {"seq": (int, False), "data": (bytes, False)},
        PICTURE: {
            "digest": (str, False),
            "media_type": (str, False),
            "kept_at": (float, False),
            "data": (bytes, False),
        },
    }
)
"""The columns of each kind of row, in the order in which they are written."""

ORDER = (LIFE, GAP, ENTRY, SUPERSEDED, ITEM, CHECKPOINT)
"""The kinds of one life's rows, in the order in which they come. A conversation's pictures come after all its lives."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row: its kind, and its columns by name."""

    kind: str
    values: Mapping[str, Any]
