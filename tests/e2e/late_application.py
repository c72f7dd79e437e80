"""An application that takes long to be imported, so that its worker is registered late."""

import os
import time

from tests.e2e.application import server

LATE = "APPLICATION_LATE"
"""Seconds; they count in the worker, and not in its jobs, which import the session function's own module."""

time.sleep(float(os.environ.get(LATE, "0")))

__all__ = ["server"]
