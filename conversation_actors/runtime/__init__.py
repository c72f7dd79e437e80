"""Conversations as Ray actors: the only package that knows Ray."""

from conversation_actors.runtime.cluster import NAMESPACE, ActorDirectory, actor_name, check, connect, drain
from conversation_actors.runtime.fork_server import start_node
from conversation_actors.runtime.owner import RemoteOwner

__all__ = ["NAMESPACE", "ActorDirectory", "RemoteOwner", "actor_name", "check", "connect", "drain", "start_node"]
