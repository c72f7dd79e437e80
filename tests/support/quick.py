"""Timings for tests: everything is repeated without long pauses."""

from conversation_actors.timing import Timing

QUICK = Timing(
    write=(0.0005, 0.002),
    outbox=(0.0005, 0.002),
    outbox_grace=0.5,
    again=0.001,
    ask=(0.001, 0.001),
    dormant=(0.001, 0.005),
    line_again=(0.001, 0.01),
    opening=(0.001, 0.005),
)
"""What clients and owners of unit tests wait; `outbox_grace` is long, so that the batch always tells why."""
