"""Exports into the archive: first everything is checked, then each conversation is added in one transaction.

A conversation is there wholly or not at all. So an import that ended in the middle is repeated as it is: what is there
with the same content is passed over.
"""

from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from conversation_actors.archive.copying import Copies
from conversation_actors.archive.rows import LIFE, Row
from conversation_actors.errors import ConflictError, CorruptStateError
from conversation_actors.store import Store
from conversation_actors.transfer.export_file import Begun, Ended, Part, digest_of, read_export


@dataclass(slots=True)
class Plan:
    """What an import would do: how many conversations are new, and how many are there with the same content."""

    new: int = 0
    there: int = 0
    rows: int = 0
    """Rows of the new ones."""
    conflicts: list[str] = field(default_factory=list)
    """Why conversations cannot be imported, one sentence each."""

    def require_no_conflict(self) -> None:
        """Raise `ConflictError` if anything cannot be imported."""
        if self.conflicts:
            more = f" (and {len(self.conflicts) - 1} more)" if len(self.conflicts) > 1 else ""
            message = f"nothing was imported: {self.conflicts[0]}{more}"
            raise ConflictError(message)


class Importer:
    """Imports exports into the archive of one tenant."""

    def __init__(self, copies: Copies, store: Store) -> None:
        """Add to `copies` what `store` neither has nor remembers to be deleted."""
        self._copies, self._store = copies, store

    async def plan(self, paths: Sequence[Path]) -> Plan:
        """Read all files to their ends and compare them with what is there; write nothing.

        Raises as `read_export` does.
        """
        plan, seen = Plan(), dict[str, str]()
        for path in paths:
            await self._plan_one(path, plan, seen if len(paths) > 1 else None)
        return plan

    async def add(self, paths: Sequence[Path]) -> Plan:
        """Add what is new, and return what was done. Raises `ConflictError` as `Copies.add` does."""
        done = Plan()
        for path in paths:
            await self._add_one(path, done)
        return done

    async def _plan_one(self, path: Path, plan: Plan, seen: dict[str, str] | None) -> None:
        lives: set[str] = set()
        rows = 0
        for part in read_export(path):
            match part:
                case Begun():
                    lives, rows = set(), 0
                case Row():
                    rows += 1
                    if part.kind == LIFE:
                        lives.add(part.values["life"])
                case Ended(conversation_id, digest):
                    if seen is not None and seen.setdefault(conversation_id, digest) != digest:
                        plan.conflicts.append(f"{conversation_id!r} is in two files, with different content")
                        continue
                    await self._compare(plan, conversation_id, digest, lives, rows)

    async def _compare(self, plan: Plan, conversation_id: str, digest: str, lives: set[str], rows: int) -> None:
        there = await digest_of(conversation_id, self._copies.rows(conversation_id))
        if there == digest:
            plan.there += 1
        elif there is not None:
            plan.conflicts.append(f"{conversation_id!r} is in the archive with other content")
        elif deleted := lives & await self._copies.deleted_lives(conversation_id):
            plan.conflicts.append(f"{conversation_id!r} was deleted in the archive (life {min(deleted)!r})")
        elif await self._store.head(conversation_id) is not None:
            plan.conflicts.append(f"{conversation_id!r} is in Redis, and not in the archive")
        elif await self._store.remembers_deletion(conversation_id):
            plan.conflicts.append(f"{conversation_id!r} was deleted, and Redis remembers that")
        else:
            plan.new += 1
            plan.rows += rows

    async def _add_one(self, path: Path, done: Plan) -> None:
        parts = read_export(path)
        for part in parts:
            if not isinstance(part, Begun):
                continue
            conversation_id = part.conversation_id
            rows = _Rows(parts)
            if await self._copies.knows(conversation_id):
                rows.skip()
                await self._require_same(conversation_id, rows.sha256)
                done.there += 1
                continue

            async def check(
                added: AsyncIterator[Row], conversation_id: str = conversation_id, rows: _Rows = rows
            ) -> None:
                if await digest_of(conversation_id, added) != rows.sha256:
                    message = f"{conversation_id!r}: the archive gave back other rows than it was given"
                    raise CorruptStateError(message, key=conversation_id, position=0)

            await self._copies.add(conversation_id, rows, check)
            done.new += 1
            done.rows += rows.count

    async def _require_same(self, conversation_id: str, digest: str) -> None:
        """Raise `ConflictError` if a conversation that came between is another one."""
        if await digest_of(conversation_id, self._copies.rows(conversation_id)) != digest:
            message = f"{conversation_id!r} came into the archive meanwhile, with other content; it was not imported"
            raise ConflictError(message)


class _Rows:
    """The rows of one conversation of a file; its digest is known when all were taken."""

    def __init__(self, parts: Iterator[Part]) -> None:
        self._parts, self.count, self.sha256 = parts, 0, ""

    def __iter__(self) -> Iterator[Row]:
        for part in self._parts:
            if isinstance(part, Ended):
                self.sha256 = part.sha256
                return
            assert isinstance(part, Row)
            self.count += 1
            yield part

    def skip(self) -> None:
        """Take all of them."""
        for _ in self:
            pass
