"""What an owner's process is called: in ``ps`` and ``top``, and in its log lines."""

import logging
from collections.abc import Callable
from hashlib import sha256
from typing import Any

from ray import _raylet
from ray._private import worker

from conversation_actors.settings import DEFAULT_TENANT, Settings

logger = logging.getLogger(__name__)

PREFIX = "ray::conversation "
"""Ray's own commands know its workers by the first letters of it."""
_LONGEST_NAME = 100
"""Bytes of a conversation's name in a title. A forked worker has room for about 180 in all."""


def full_name(conversation_id: str, settings: Settings) -> str:
    """Return what tells a conversation from all others, of other tenants too; a hash with `Settings.hashed_names`."""
    name = f"{settings.tenant}:{conversation_id}"
    return sha256(name.encode()).hexdigest() if settings.hashed_names else name


def shown_name(conversation_id: str, settings: Settings) -> str:
    """Return what a conversation is called where people look: its id, after its tenant unless that is the default.

    With `Settings.hashed_names` it is the hash that the actor's name has too.
    """
    is_plain = settings.tenant == DEFAULT_TENANT and not settings.hashed_names
    return conversation_id if is_plain else full_name(conversation_id, settings)


def title_of(name: str, epoch: int | None) -> str:
    """Return the title of the process that owns a conversation; an id that is too long is cut."""
    encoded = name.encode()
    if len(encoded) > _LONGEST_NAME:
        name = encoded[: _LONGEST_NAME - 3].decode(errors="ignore") + "…"
    return PREFIX + name + ("" if epoch is None else f" epoch {epoch}")


class ProcessTitle:
    """The title of a Ray worker's process, which Ray from now on leaves alone.

    Ray changes it with each call, to the method's name. Where this Ray has no such function, nothing is changed.
    """

    def __init__(self) -> None:
        """Take the title over."""
        self._set: Callable[[str], object] = _unchanged
        holder = _holder()
        if holder is None:
            logger.info("this Ray lets nobody set a process's title")
            return
        self._set, holder.setproctitle = holder.setproctitle, _unchanged

    def show(self, title: str) -> None:
        """Be called this."""
        self._set(title)


def _holder() -> Any:
    """Where Ray finds its function: a module of its own, or one that it brings along. None if there is neither."""
    found = (_raylet, getattr(worker, "setproctitle", None))
    return next((one for one in found if callable(getattr(one, "setproctitle", None))), None)


def _unchanged(_title: str) -> None:
    """Leave the title as it is."""
