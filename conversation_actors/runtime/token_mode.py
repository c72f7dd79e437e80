"""Whether the nodes of a cluster ask for a token: decided for the head, found out for a node that joins it."""

import argparse
import sys
from collections.abc import Sequence
from importlib import metadata

from conversation_actors.errors import ClusterMisconfiguredError
from conversation_actors.runtime import ray_environment
from conversation_actors.runtime.diagnosis import ask, plain_address, reach, refusal, require_same_versions


def choose_token_mode(arguments: Sequence[str]) -> None:
    """Decide for a node that `ray start` is about to start with these arguments, and say so in a line.

    Before Ray is imported. A head asks for a token, which is made if there is none, unless RAY_AUTH_MODE says
    otherwise; a node does what its head does. Raises what keeps the node from joining, see `require_joinable`.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--head", action="store_true")
    parser.add_argument("--help", action="store_true")
    parser.add_argument("--address", nargs="?")
    told = parser.parse_known_args(list(arguments))[0]
    if told.help:
        return
    if ray_environment.has_other_mode():
        return
    if told.head:
        _say(_of_head())
        return
    address = ray_environment.address_of_this_terminal() if told.address in {None, "auto"} else told.address
    if told.address and address and plain_address(address):  # Ray itself says what is wrong with another one
        _say(_of_node(address))


def _of_head() -> str:
    if not ray_environment.knows_tokens():
        ray = metadata.version("ray")
        return f"token  none: Ray {ray} knows none, and whoever reaches this node's ports may run code here"
    if ray_environment.token_mode() == "disabled":
        return "token  none, as RAY_AUTH_MODE says: whoever reaches this node's ports may run code here"
    place = ray_environment.ensure_token().place
    ray_environment.use_token()
    return (
        f"token  asked for, the one in {place}: nodes and clients need it there too, and RAY_AUTH_MODE=token "
        "(RAY_AUTH_MODE=disabled at the head turns this off)"
    )


def _of_node(address: str) -> str:
    """Ask the head without a token, and again with it where it wants one."""
    is_here = reach(address)
    head = ask(address, None, is_here=is_here)
    if not head.wants_token:
        require_same_versions(head)
        return f"token  none: the cluster at {address} asks for none"
    is_off = ray_environment.token_mode() == "disabled"
    token = ray_environment.token() if ray_environment.knows_tokens() and not is_off else None
    if token is not None and token.value is not None:
        head = ask(address, token, is_here=is_here)
    if head.wants_token:
        raise ClusterMisconfiguredError(refusal(head, token))
    require_same_versions(head)
    assert token is not None
    ray_environment.use_token()
    return f"token  the one in {token.place}, which the cluster at {address} asks for"


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201  # a command line's way to tell
