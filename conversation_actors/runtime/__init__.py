"""Conversations as Ray actors: the only package that knows Ray."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from conversation_actors.runtime.cluster import NAMESPACE, ActorDirectory, actor_name, check, connect, drain
    from conversation_actors.runtime.fork_server import start_node
    from conversation_actors.runtime.port import RayPort
    from conversation_actors.runtime.whereabouts import Whereabouts, find_whereabouts

__all__ = [
    "NAMESPACE",
    "ActorDirectory",
    "RayPort",
    "Whereabouts",
    "actor_name",
    "check",
    "connect",
    "drain",
    "find_whereabouts",
    "start_node",
]

_MODULES = {
    "RayPort": "port",
    "Whereabouts": "whereabouts",
    "find_whereabouts": "whereabouts",
    "start_node": "fork_server",
}


def __getattr__(name: str) -> Any:
    """Import a name when it is used: an actor's process, which must start quickly, needs none of them."""
    if name not in __all__:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    return getattr(import_module(f"{__name__}.{_MODULES.get(name, 'cluster')}"), name)
