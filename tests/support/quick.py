"""Timings for tests: everything is repeated without long pauses."""

from conversation_actors.timing import Timing

QUICK = Timing(ask=(0.001, 0.001), dormant=(0.001, 0.005))
"""What clients and owners of unit tests wait."""
