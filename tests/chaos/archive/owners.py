"""Owners in the test's process on a real Redis, with ways to hurt them; one conversation each."""

from dataclasses import replace

from conversation_actors import ConversationHandle, Settings
from conversation_actors.client.history import Histories
from conversation_actors.store import Store
from conversation_actors.timing import TIMING
from tests.support.fakes import FakeActor, FakeCluster

_TIMING = replace(TIMING, write=(0.01, 0.2), outbox=(0.01, 0.2), ask=(0.01, 0.1), again=0.05, dormant=(0.01, 0.2))


class Owners(FakeCluster):
    """A `FakeCluster` for a conversation of any name."""

    def __init__(self, conversation_id: str, store: Store, settings: Settings) -> None:
        """No owner runs yet."""
        super().__init__(store, settings)
        self.conversation_id, self.timing = conversation_id, _TIMING

    def get_or_create(self) -> FakeActor:
        """Return the owner that runs, started if there is none."""
        return self.find() or self.start_another()

    def start_another(self) -> FakeActor:
        """Start an owner whatever runs: one that was there before lives on, and is deposed."""
        actor = self.actor = FakeActor(self.conversation_id, self.settings, self.store, timing=self.timing)
        self.actors.append(actor)
        return actor

    async def handle(self) -> ConversationHandle:
        """One more handle, as another process would have it."""
        owner = self.owner()
        _, view = await owner.open(create=True)
        histories = Histories(self.archive, lambda: self.store, self.settings, timing=self.timing)
        handle = ConversationHandle(
            self.conversation_id, owner, view, self.settings, histories=histories, timing=self.timing
        )
        self._handles.append(handle)
        return handle
