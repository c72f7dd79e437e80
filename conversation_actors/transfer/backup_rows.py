"""A conversation of Redis as rows of a backup, which come after the archive's rows of the same conversation."""

from collections.abc import Iterable, Iterator
from typing import Any

from conversation_actors.archive.rows import COLUMNS, Row
from conversation_actors.store.redis_copies import RedisCopy
from conversation_actors.transfer.export_file import Layout

REDIS, META, SNAPSHOT = "redis", "redis_meta", "redis_snapshot"
JOURNAL, ARCHIVE, BACKLOG = "redis_journal", "redis_archive", "redis_backlog"
KINDS = (REDIS, META, SNAPSHOT, JOURNAL, ARCHIVE, BACKLOG)

_FIELD = {"name": (str, False), "data": (bytes, False)}
_VALUE = {"data": (bytes, False)}
BACKUP = Layout(
    "conversation-actors backup",
    1,
    {
        **COLUMNS,
        REDIS: {"left_ms": (int, False), "archive_left_ms": (int, False)},
        META: _FIELD,
        SNAPSHOT: _VALUE,
        JOURNAL: _VALUE,
        ARCHIVE: _FIELD,
        BACKLOG: _VALUE,
    },
    last=KINDS,
)


def rows_of(copy: RedisCopy) -> Iterator[Row]:
    """Yield the rows of what Redis has; none if it has nothing."""
    if copy.is_empty:
        return
    yield Row(REDIS, {"left_ms": copy.left_ms, "archive_left_ms": copy.archive_left_ms})
    for kind, fields in ((META, copy.meta), (ARCHIVE, copy.archive)):
        if kind == ARCHIVE:
            yield from _values(SNAPSHOT, () if copy.snapshot is None else (copy.snapshot,))
            yield from _values(JOURNAL, copy.journal)
        for name, value in sorted(fields.items()):
            yield Row(kind, {"name": name.decode(), "data": value})
    yield from _values(BACKLOG, copy.backlog)


def _values(kind: str, values: Iterable[bytes]) -> Iterator[Row]:
    return (Row(kind, {"data": value}) for value in values)


def copy_of(rows: Iterable[Row]) -> RedisCopy | None:
    """Return what the rows were made of; None if there are none."""
    found: dict[str, list[Any]] = {kind: [] for kind in KINDS}
    for row in rows:
        found[row.kind].append(row.values)
    if not found[REDIS]:
        return None
    (times,) = found[REDIS][:1]
    return RedisCopy(
        meta={values["name"].encode(): values["data"] for values in found[META]},
        snapshot=next((values["data"] for values in found[SNAPSHOT]), None),
        journal=tuple(values["data"] for values in found[JOURNAL]),
        left_ms=times["left_ms"],
        archive={values["name"].encode(): values["data"] for values in found[ARCHIVE]},
        backlog=tuple(values["data"] for values in found[BACKLOG]),
        archive_left_ms=times["archive_left_ms"],
    )
