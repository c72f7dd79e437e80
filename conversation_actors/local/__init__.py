"""Owners in the process of their clients, for ``memory://``: no Ray, no server, and the same activation."""

from conversation_actors.local.host import MEMORY_NODE
from conversation_actors.local.hosts import LocalHosts, hosts_of_process
from conversation_actors.local.port import LocalOwners

__all__ = ["MEMORY_NODE", "LocalHosts", "LocalOwners", "hosts_of_process"]
