"""Make handlers of LiveKit's events safe: whatever goes wrong in one, the call goes on."""

from collections.abc import Callable
from typing import Any

from agent_worker.failures import Failures


def total(handler: Callable[..., None], failures: Failures, task: str, told: str) -> Callable[..., None]:
    """Return a handler that does the same but never raises an `Exception`.

    LiveKit lets a `TypeError` of a handler through, which ends the agent's reply. What the handler raises is counted
    under `task`. The log says `told` and the error's type, because the text may quote the call; see `Failures.count`.
    """

    def handle(*arguments: Any) -> None:
        try:
            handler(*arguments)
        except Exception as error:  # noqa: BLE001  # see the docstring
            failures.count(task, error, told)

    return handle
