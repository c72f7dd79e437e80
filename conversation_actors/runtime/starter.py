"""Starting detached actors that have nothing of the program which asks for them.

Ray gives an actor the runtime environment (variables, working directory, packages) of the job or the actor that
creates it. An actor may add to that and replace single values, but take nothing away: the merging is done in Ray's
core, and an empty environment stands for the creator's. A conversation's owner outlives whoever opens it first, and
belongs to everybody; so where the opener has an environment, the owner is started by an actor that has none, the
`Starter`. That one is made, once for the cluster, by a process which joins Ray for nothing else. It is not made, and
costs nothing, where no program has a runtime environment.
"""

import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError

logger = logging.getLogger(__name__)

STARTER_NAME = "conversation-starter"
_START_SECONDS = 10.0
"""For one actor; a starter that Ray is just restarting takes a second or two."""
_MAKE_SECONDS = 30.0
"""A process that imports Ray, joins, and waits for an actor: two seconds on two slow cores."""
_AGAIN_SECONDS = 60.0
"""After a failure nobody waits for a starter again for so long: where nodes lack this package there never is one."""
_AT_ONCE = 8
_OF_THE_JOB = (
    "RAY_JOB_CONFIG_JSON_ENV_VAR",
    "RAY_OVERRIDE_JOB_RUNTIME_ENV",
    "RAY_RUNTIME_ENV_HOOK",
    "RAY_JOB_ID",
    "RAY_RAYLET_PID",
)
"""Variables through which a process below this one would get its job or its runtime environment too."""
_PROGRAM = "import sys; from conversation_actors.runtime.starter import make; make(*sys.argv[1:])"


class Starter:
    """Starts actors in the name of others, from a process without a runtime environment."""

    def start(self, plain: type, options: Mapping[str, Any], arguments: tuple[Any, ...]) -> Any:
        """Start a detached actor of the class `plain`, or find the one of its name; returns Ray's proxy of it."""
        return _remote(plain).options(**options).remote(*arguments)

    def is_ready(self) -> bool:
        """Return True, once there is a process for it."""
        return True


class CleanStarts:
    """Starts detached actors from this process, without its runtime environment. Its methods block."""

    def __init__(self) -> None:
        """Nobody is asked yet."""
        self._starter: Any = None
        self._making = threading.Lock()
        self._failed_at = -_AGAIN_SECONDS

    def start(self, plain: type, options: Mapping[str, Any], *arguments: Any) -> Any:
        """Start an actor of the class `plain`, or find the one of its name; returns Ray's proxy of it.

        `options` are Ray's, with a name and a namespace. Where the starter cannot be had, the actor is started all
        the same: it then keeps this process's runtime environment, which is logged. Raises what Ray raises.
        """
        if not has_environment() or self._has_failed:
            return _remote(plain).options(**options).remote(*arguments)
        try:
            return ray.get_actor(options["name"], namespace=options["namespace"])
        except ValueError:
            logger.debug("not running; it is started")
        try:
            asked = self._found(options["namespace"]).start.remote(plain, dict(options), arguments)
            return ray.get(asked, timeout=_START_SECONDS)
        except (OSError, RayError, ValueError, subprocess.SubprocessError) as error:
            self._starter, self._failed_at = None, time.monotonic()
            logger.warning("actors keep the runtime environment of this program", extra={"reason": _reason(error)})
        return _remote(plain).options(**options).remote(*arguments)

    @property
    def _has_failed(self) -> bool:
        return time.monotonic() - self._failed_at < _AGAIN_SECONDS

    def _found(self, namespace: str) -> Any:
        """Return the starter, made if there is none. Raises `OSError` if others have just waited for one in vain."""
        with self._making:
            if self._has_failed:
                message = "no starter could be made a moment ago"
                raise OSError(message)
            if self._starter is None:
                try:
                    self._starter = _find_or_make(namespace)
                except BaseException:
                    self._failed_at = time.monotonic()
                    raise
            return self._starter


@cache
def _remote(plain: type) -> Any:
    """Ray's class for it, made once: each is written to the cluster before its first use."""
    return ray.remote(plain)


def has_environment() -> bool:
    """Whether actors that this process creates would get a runtime environment from it."""
    return ray.get_runtime_context().get_runtime_env_string() not in {"", "{}"}


def _find_or_make(namespace: str) -> Any:
    try:
        return ray.get_actor(STARTER_NAME, namespace=namespace)
    except ValueError:
        _run_make(namespace)
    return ray.get_actor(STARTER_NAME, namespace=namespace)


def _run_make(namespace: str) -> None:
    """Run `make` in a process of its own. Raises `subprocess.SubprocessError` if that fails."""
    environment = {name: value for name, value in os.environ.items() if name not in _OF_THE_JOB}
    environment["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] = "0"
    # It finds this package where this process did; what Ray hands on of a driver's path is its directory only.
    environment["PYTHONPATH"] = os.pathsep.join(str(Path(entry).absolute()) for entry in sys.path)
    subprocess.run(  # noqa: S603  # this interpreter, on a text that is above
        [sys.executable, "-c", _PROGRAM, ray.get_runtime_context().gcs_address, namespace],
        env=environment, cwd="/", stdin=subprocess.DEVNULL, capture_output=True, timeout=_MAKE_SECONDS, check=True,
    )  # fmt: skip


def make(address: str, namespace: str) -> None:
    """Join the cluster without a runtime environment, and make the starter unless there is one."""
    ray.init(address=address, namespace=namespace, log_to_driver=False, configure_logging=False)
    options = {
        "name": STARTER_NAME,
        "lifetime": "detached",
        "get_if_exists": True,
        "num_cpus": 0,
        "max_restarts": -1,
        "max_task_retries": -1,  # to start twice is to find the first
        "max_concurrency": _AT_ONCE,
        "enable_task_events": False,
    }
    # An actor whose creator ends too early can end with it.
    ray.get(_remote(Starter).options(**options).remote().is_ready.remote(), timeout=_MAKE_SECONDS)


def _reason(error: Exception) -> str:
    """Return what went wrong, in a line; of a process that failed, its last."""
    if isinstance(error, subprocess.CalledProcessError) and error.stderr:
        return str(error.stderr.decode(errors="replace").strip().rpartition("\n")[2])
    return repr(error)
