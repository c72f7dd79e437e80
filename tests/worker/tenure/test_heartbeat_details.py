"""What an agent says of itself beside its heartbeat is read as it was written, whoever wrote it."""

from typing import Any

import pytest

from agent_worker.tenure.heartbeat_details import HeartbeatDetails

WHOLE = HeartbeatDetails(
    room="r",
    agent_name="a",
    agent_identity="i",
    attempt=2,
    worker_id="AW_1",
    dispatch_id="AD_1",
    metadata="{}",
    host="h",
    pid=7,
    failures={"notes": 1},
    was_open=False,
)


@pytest.mark.parametrize("details", [WHOLE, HeartbeatDetails(), HeartbeatDetails(room="r", was_open=False)])
def test_details_are_read_as_they_were_written(details: HeartbeatDetails) -> None:
    """What is not known is not written, and read as not known."""
    assert HeartbeatDetails.from_dict(details.to_dict()) == details


def test_details_are_written_in_the_form_that_earlier_versions_read() -> None:
    """An agent that holds its conversation writes nothing about whether it does."""
    written = HeartbeatDetails(room="r", agent_name="a", agent_identity="i").to_dict()
    assert written == {
        "room": "r",
        "agent_name": "a",
        "agent_identity": "i",
        "attempt": 0,
        "worker_id": "",
        "dispatch_id": "",
    }


@pytest.mark.parametrize(
    ("stored", "read"),
    [
        ({}, HeartbeatDetails()),
        ({"room": 1, "agent_name": None, "agent_identity": []}, HeartbeatDetails()),
        ({"attempt": -1}, HeartbeatDetails(attempt=None)),
        ({"attempt": "2"}, HeartbeatDetails(attempt=None)),
        ({"metadata": {}, "dispatch_id": None, "pid": "x"}, HeartbeatDetails()),
        ({"failures": {"notes": 1, "items": "x"}}, HeartbeatDetails(failures={"notes": 1})),
        ({"failures": 3, "was_open": 0, "colour": "red"}, HeartbeatDetails()),
    ],
)
def test_what_another_program_wrote_is_read_as_far_as_it_is_of_use(
    stored: dict[str, Any], read: HeartbeatDetails
) -> None:
    """Nothing is raised, whatever the record holds."""
    assert HeartbeatDetails.from_dict(stored) == read
