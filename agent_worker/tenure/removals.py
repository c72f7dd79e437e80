"""Items that are to be taken out of a conversation, until that is acknowledged."""

from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from functools import partial
from itertools import islice

from agent_worker.tenure.backlog import Operation
from conversation_actors import ConversationHandle, InvalidInputError, Lease
from conversation_actors.values import check_id

_AT_ONCE = 500


class Removals:
    """Ids that wait, and that the past is to be forgotten; asked for again when the conversation was away."""

    def __init__(self, later: Callable[[Operation], None], all_taken: Callable[[], Awaitable[None]]) -> None:
        """`later` does something after what waits; `all_taken` returns when what was told before is stored."""
        self._later, self._all_taken = later, all_taken
        self._waiting: dict[str, None] = {}
        self._asked = self._done = 0

    def put(self, item_ids: Iterable[str]) -> None:
        """Have items taken out; without any, the past forgotten. Never raises."""
        for item_id in item_ids:
            with suppress(InvalidInputError):  # nothing can be stored under it, and the others are not to wait for it
                self._waiting[check_id(item_id, "item_ids")] = None
        self._asked += 1
        self._ask()

    def put_again(self, _is_afresh: bool) -> None:  # noqa: FBT001  # a callback of one value
        """Ask for what was dropped, as the conversation answers again."""
        if self._done < self._asked:
            self._ask()

    def _ask(self) -> None:
        self._later(partial(self._remove, self._asked))

    async def _remove(self, asked: int, handle: ConversationHandle, lease: Lease) -> None:
        """Remove what waits. Raises what the handle raises.

        The last one that was asked for does for all: what was to be done between the first and it may have stored what
        the first was to forget.
        """
        if asked == self._done or asked < self._asked:
            return
        await self._all_taken()
        ids = tuple(islice(self._waiting, _AT_ONCE))
        await handle.remove(*ids, lease=lease)
        for item_id in ids:
            self._waiting.pop(item_id, None)
        if not self._waiting:
            self._done = asked
        elif asked == self._asked:
            self._ask()
