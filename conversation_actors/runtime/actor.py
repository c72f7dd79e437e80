"""The Ray actor that owns a conversation: a plain class, made remote in `conversation_actors.runtime.cluster`.

Only what has to happen in the actor's own process is here, because a fork server must not have imported it.
"""

import logging

from conversation_actors.activation import Activation
from conversation_actors.runtime.host import ActivationHost
from conversation_actors.runtime.owner_log import OwnerFormatter, write_to_node
from conversation_actors.runtime.termination import listen
from conversation_actors.runtime.titles import ProcessTitle, shown_name, title_of
from conversation_actors.settings import Settings

listen()  # see there why at import

logger = logging.getLogger(__name__)

_NOT_SHOWN = "this process does not show whose it is"


class ConversationActor(ActivationHost):
    """An `ActivationHost` in a process that hears SIGTERM, and says whose it is in its title and in its log lines."""

    def __init__(self, conversation_id: str, settings: Settings) -> None:
        """See `ActivationHost`."""
        self._signature = Signature(conversation_id, settings)
        super().__init__(conversation_id, settings)

    async def _activated(self, *, create: bool) -> Activation:
        activation = await super()._activated(create=create)
        self._signature.show(activation.epoch)
        return activation


class Signature:
    """Whose process this is, where people look for it. Whatever fails here is logged, and no harm."""

    def __init__(self, conversation_id: str, settings: Settings) -> None:
        """Show the conversation; of which epoch its owner is nobody knows yet."""
        self._name = shown_name(conversation_id, settings)
        self._lines = OwnerFormatter(conversation_id, settings)
        self._title: ProcessTitle | None = None
        write_to_node(self._lines)
        try:
            self._title = ProcessTitle()
        except Exception:  # a constructor that raises would be the end of the actor, for ever
            logger.exception(_NOT_SHOWN)
        self._show_title()

    def show(self, epoch: int) -> None:
        """Show the epoch too."""
        if epoch == self._lines.epoch:
            return
        self._lines.epoch = epoch
        self._show_title()

    def _show_title(self) -> None:
        if self._title is None:
            return
        try:
            self._title.show(title_of(self._name, self._lines.epoch))
        except Exception:  # this is called before an answer, which must not depend on it
            self._title = None
            logger.exception(_NOT_SHOWN)
