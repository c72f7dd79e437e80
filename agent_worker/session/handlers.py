"""Handlers of LiveKit's events: whatever goes wrong in one, the call goes on."""

from collections.abc import Callable
from typing import Any

from agent_worker.failures import Failures


def total(handler: Callable[..., None], failures: Failures, task: str, told: str) -> Callable[..., None]:
    """Return the handler, never raising: LiveKit lets a TypeError through, and it ends the agent's reply.

    What it raised is counted under `task`; `told` is what the log says, with the error's type: its text may
    quote the call.
    """

    def handle(*arguments: Any) -> None:
        try:
            handler(*arguments)
        except Exception as error:  # noqa: BLE001  # see the docstring
            failures.count(task, error, told)

    return handle
