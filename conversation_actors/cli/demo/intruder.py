"""Somebody who takes a conversation without its owner's knowledge, as the other side of a network split would."""

from types import TracebackType
from typing import Self

from conversation_actors.codec import encode_entry
from conversation_actors.errors import FencedError
from conversation_actors.items import Message
from conversation_actors.settings import Settings
from conversation_actors.state import Entry, ItemsAppended
from conversation_actors.store import Recovered, open_store


class Intruder:
    """A second owner, which goes to the store directly, past the actor."""

    def __init__(self, settings: Settings, conversation_id: str) -> None:
        """Open the store, and take nothing yet."""
        self._store = open_store(settings)
        self._conversation_id, self._ttl = conversation_id, settings.ttl
        self._recovered: Recovered | None = None

    async def __aenter__(self) -> Self:
        """Return the intruder, which is ready."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Let go of the connection."""
        await self._store.aclose()

    @property
    def epoch(self) -> int:
        """The epoch that the intruder took."""
        return self._taken.claim.epoch

    async def take_over(self) -> None:
        """Take the next epoch: from now on the store refuses the writes of the previous owner."""
        self._recovered = await self._store.activate(
            self._conversation_id, owner="demo-intruder", create=False, ttl=self._ttl
        )

    async def write(self) -> str:
        """Try to write, which must fail once there is a newer owner. Returns the store's outcome, or ``FENCED``."""
        item = Message(role="user", content="I am the owner here.").to_stored()
        seq = self._taken.seq + 1
        entry = Entry(seq, self.epoch, 0.0, ItemsAppended((item,)))
        try:
            outcome = await self._store.append(
                self._taken.claim, expected_seq=seq - 1, entries=[encode_entry(entry)], ttl=self._ttl
            )
        except FencedError:
            return "FENCED"
        return outcome.value

    @property
    def _taken(self) -> Recovered:
        assert self._recovered is not None
        return self._recovered
