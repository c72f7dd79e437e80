"""Worker processes forked from one that has imported everything: nine times quicker to start, a third of the memory.

A plain Ray worker spends a second of CPU on importing Ray, and keeps its own copy of all of it. Here one process per
raylet, the fork server, imports once; each worker is a fork of it and shares those pages until it writes to them
(`fork_server.gaps` sees to it that these are few).

How it comes about, for one worker:

1. `conversation-actors start` runs `ray start` with `sys.executable` pointing to ``launcher.sh`` (`start_node`). The
   raylet starts each worker as ``<sys.executable> default_worker.py …``: that is all of Ray that is bent.
2. ``launcher.py`` (Python without its libraries: 8 ms) hands arguments, environment, working directory and the
   descriptors 0 to 2 to the raylet's fork server over a Unix socket, and ends. Ray learns the worker's real process
   id when the worker registers itself.
3. ``server.py`` forks at once. The child checks that the request is one it may serve exactly as a fresh interpreter
   would, takes on what it was handed, and runs ``default_worker.py`` as ``__main__``.

The child begins only when its launcher has heard that it is there and has said "go". In every other case (nobody
listens, an answer is missing, late or "no", either side dies) the launcher becomes the ordinary interpreter, as if it
had never been there: slower, never wrong, never two. What is not an ordinary worker (another runtime environment,
an I/O worker, any other program that Ray starts with `sys.executable`) it does not even ask for.

The server is started by the first launcher, and again by the next one when it is gone: the name of its socket, made
of the raylet's process id and start time, can be bound by one process only. It is a child of the raylet, waits
for its end on a descriptor, ends with it, and does nothing else while no worker is asked for. The socket's name is an
abstract one: nothing stays in the file system; both sides ask the kernel for the other's user id.
When a library that it has imported, or this project, changes on disk it ends too. If its own
check of itself (`server.doubts`) finds anything, it stays, and refuses: every worker is an ordinary one then, and its
log in Ray's log directory says why.

Linux only: elsewhere `start_node` says so and starts an ordinary node.
"""

from conversation_actors.runtime.fork_server.node import is_forked, start_node, was_ready

__all__ = ["is_forked", "start_node", "was_ready"]
