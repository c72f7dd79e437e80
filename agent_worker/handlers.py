"""Handlers of LiveKit's events: whatever goes wrong in one, the call goes on."""

import logging
from collections.abc import Callable
from typing import Any


def total(handler: Callable[..., None], log: logging.Logger, failure: str) -> Callable[..., None]:
    """The handler, never raising: LiveKit lets a TypeError through, and it ends the agent's reply.

    `failure` is what `log` says instead, with the error's type: its text may quote the call.
    """

    def handle(*arguments: Any) -> None:
        try:
            handler(*arguments)
        except Exception as error:  # noqa: BLE001  # see the docstring
            log.warning(failure, extra={"reason": type(error).__name__})

    return handle
