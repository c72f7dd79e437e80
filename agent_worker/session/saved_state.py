"""What an agent keeps of itself: its own two hooks, ``saved_state()`` and ``restore_state(saved)``."""

import inspect
import json
import logging
from collections.abc import Callable, Mapping
from typing import Any

from livekit.agents import Agent

from agent_worker.failures import Failures
from agent_worker.session.had_the_word import HadTheWord
from agent_worker.session.record_fields import is_larger

logger = logging.getLogger(__name__)

MOST_STATE_BYTES = 16 << 10


class StateError(Exception):
    """What `saved_state` gave cannot be stored. The text quotes nothing of it."""


def saved_state(agent: Agent) -> dict[str, Any] | None:
    """Return what the agent wants to be given back, as JSON's types; None if it has no such hook.

    Raises `StateError` if that is no JSON object, or too much, and whatever the hook raises.
    """
    hook = getattr(agent, "saved_state", None)
    if not callable(hook):
        return None
    given = hook()
    if inspect.iscoroutine(given):
        given.close()
    if is_larger(given, MOST_STATE_BYTES):
        message = f"saved_state() gave more than {MOST_STATE_BYTES} bytes"
        raise StateError(message)
    try:
        encoded = json.dumps(dict(given), allow_nan=False)
    except (TypeError, ValueError) as error:
        message = f"saved_state() gave no JSON object ({type(error).__name__})"
        raise StateError(message) from None
    if len(encoded) > MOST_STATE_BYTES:
        message = f"saved_state() gave more than {MOST_STATE_BYTES} bytes"
        raise StateError(message)
    state: dict[str, Any] = json.loads(encoded)
    return state


def latest_state(
    agent: Agent, before: Mapping[str, Any] | None, failures: Failures, *, tell: Callable[[str], None]
) -> Mapping[str, Any] | None:
    """Return what the agent wants to be given back; the last that could be stored if the present one cannot.

    `tell` is given the reason for that; what the hook raises is counted.
    """
    try:
        return saved_state(agent)
    except StateError as error:
        tell(str(error))
    except Exception as error:  # noqa: BLE001  # the application's own
        failures.count("active_agent", error, "saved_state() failed")
    return before


async def restore_itself(agent: Agent, had: HadTheWord) -> None:
    """Give the agent back its state, and instructions that it would not have by itself."""
    await restore_state(agent, had.state)
    if had.instructions is not None and agent.instructions != had.instructions:
        await agent.update_instructions(had.instructions)


async def restore_state(agent: Agent, saved: Mapping[str, Any] | None) -> None:
    """Give the agent back what it saved. What its hook raises is logged, by its type: the agent begins anew."""
    hook = getattr(agent, "restore_state", None)
    if saved is None or not callable(hook):
        return
    try:
        given = hook(dict(saved))
        if inspect.isawaitable(given):
            await given
    except Exception as error:  # noqa: BLE001  # the application's; a call without its state is better than none
        details = {"agent_id": agent.id, "reason": type(error).__name__}
        logger.warning("restore_state() failed; the agent begins anew", extra=details)
