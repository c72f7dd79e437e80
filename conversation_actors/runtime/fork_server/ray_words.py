"""What `ray start` tells people to do next, made true for nodes of ours.

A node that Ray's own command starts has ordinary, slow workers, and sends no token unless RAY_AUTH_MODE says so.
"""

from typing import Any

_RAYS, _OURS = " ray start ", " conversation-actors start "


def name_our_command() -> None:
    """Have this process name our command in the place of Ray's; a Ray that prints in another way goes on doing so."""
    from ray.autoscaler._private.cli_logger import cli_logger  # noqa: PLC0415  # as in `start_node`

    printing = getattr(cli_logger, "_print", None)
    if printing is None:
        return

    def told(message: str, *args: Any, **options: Any) -> None:
        printing(message.replace(_RAYS, _OURS), *args, **options)

    cli_logger._print = told  # noqa: SLF001  # Ray has no setting for it
