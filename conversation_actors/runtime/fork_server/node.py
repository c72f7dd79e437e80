"""Starting a Ray node whose workers are forked."""

import argparse
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from conversation_actors.errors import ClusterUnavailableError
from conversation_actors.runtime.fork_server.launcher import FORKED, NIL_JOB
from conversation_actors.runtime.fork_server.ray_words import name_our_command

logger = logging.getLogger(__name__)

TESTED_RAY = "2.60."
"""The releases whose workers were seen to survive a fork. Another one gets ordinary workers until it is tested."""

_LAUNCHER = Path(__file__).with_name("launcher.sh")
_NIL_JOB = NIL_JOB.decode()
_PYTHON = "CONVERSATION_NODE_PYTHON"
_STARTS_AT_ONCE = "RAY_worker_maximum_startup_concurrency"
"""Ray's own setting, which it reads from the environment; without it, one worker starts at a time for each of the
node's CPUs."""
_USAGE_STATS = "RAY_USAGE_STATS_ENABLED"
_STARTS_PER_CPU = 2
"""A forked worker waits for Ray's other processes during a part of its start: a burst takes a sixth less like that."""


def start_node(arguments: Sequence[str], *, program: str = "ray") -> NoReturn:
    """Be ``ray start`` with these arguments, and with a fork server where there can be one. Never returns.

    In its help and its complaints, what was called is `program`.

    Where there cannot, that is said, and the node is an ordinary one. Raises what keeps it from joining its head.
    """
    # owners import this module too, and need nothing of that
    from conversation_actors.runtime.token_mode import choose_token_mode  # noqa: PLC0415

    choose_token_mode(arguments)
    from ray.scripts.scripts import cli  # noqa: PLC0415  # takes most of a second

    obstacle = next(_obstacles(), None)
    if obstacle is None:
        os.environ[_PYTHON] = sys.executable
        os.environ.setdefault(_STARTS_AT_ONCE, str(_starts_at_once(arguments)))
        sys.executable = str(_LAUNCHER)
    else:
        logger.warning("workers start the ordinary way, slowly: %s", obstacle)
    sys.argv = ["ray", "start", *arguments]
    # Ray would ask a person, or say in five lines that it has asked nobody.
    os.environ.setdefault(_USAGE_STATS, "0")
    name_our_command()
    try:
        cli(prog_name=program)
    except Exception as error:  # whatever it was: Ray's would be a page of code
        message = f"Ray did not start: {' '.join(str(error).split()) or type(error).__name__}"
        raise ClusterUnavailableError(message.replace("`ray start`", f"`{program} start`")) from error
    raise SystemExit(0)


def _starts_at_once(arguments: Sequence[str]) -> int:
    """How many workers may start at the same time, by the CPUs of the machine or container, or fewer if so told."""
    from ray._private.utils import get_num_cpus  # noqa: PLC0415  # as in `start_node`

    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--num-cpus", nargs="?")
    told = parser.parse_known_args(list(arguments))[0].num_cpus
    cpus = int(get_num_cpus())
    if told and told.isdecimal():  # Ray itself says what is wrong with another value
        cpus = min(cpus, int(told))
    return _STARTS_PER_CPU * max(1, cpus)


def untested_ray() -> Iterator[str]:
    """Why this Ray's workers are not forked; nothing for a tested one."""
    import ray  # noqa: PLC0415  # as in `start_node`

    if not ray.__version__.startswith(TESTED_RAY):
        yield f"Ray {ray.__version__} was not tested with forked workers (tested: {TESTED_RAY}*)"


def _obstacles() -> Iterator[str]:
    """Why this machine can have no fork server; nothing, usually."""
    if not sys.platform.startswith("linux"):
        yield "forking needs Linux"
    if not hasattr(os, "pidfd_open"):
        yield "this Python cannot wait for the end of a process (os.pidfd_open)"
    if os.environ.get("PYTHONSAFEPATH"):
        yield "PYTHONSAFEPATH keeps the fork server from its own modules"
    yield from untested_ray()
    if not os.access(_LAUNCHER, os.X_OK):
        yield f"{_LAUNCHER} may not be executed"
    if " " in str(_LAUNCHER) or "'" in str(_LAUNCHER):
        yield f"Ray cannot start a program whose path has a space in it ({_LAUNCHER})"


def was_ready() -> bool:
    """Whether this process is a worker that was started before anybody needed it: Ray started it for no job."""
    return os.environ.get("RAY_JOB_ID", _NIL_JOB) == _NIL_JOB


def is_forked() -> bool:
    """Whether this process is a worker that was forked."""
    return os.environ.get(FORKED) == str(os.getpid())
