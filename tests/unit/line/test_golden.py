"""The bytes of a line: they stay what they are as long as the number of the protocol does."""

from pathlib import Path
from typing import get_args

from conversation_actors.line.frames import FrameReader
from conversation_actors.line.messages import ToClient, ToOwner, decode_to_client, decode_to_owner
from conversation_actors.protocol import PROTOCOL
from tests.support.line_messages import TO_CLIENT, TO_OWNER, lines, plain

_DATA = Path(__file__).parents[2] / "data" / "line"


def golden(protocol: int = PROTOCOL) -> dict[str, bytes]:
    """Return the frames of a protocol by their names."""
    told = [line.split(": ") for line in (_DATA / f"{protocol}.txt").read_text().splitlines()]
    return {name: bytes.fromhex(frame) for name, frame in told}


def test_a_message_is_written_as_its_protocol_says() -> None:
    """Other bytes for the same message are another protocol, and have a file of their own."""
    assert lines() == (_DATA / f"{PROTOCOL}.txt").read_text().splitlines()


def test_the_bytes_of_a_protocol_are_read_as_the_messages_that_they_were() -> None:
    """A process that runs already has written them."""
    bodies = {name: FrameReader().feed(frame)[0] for name, frame in golden().items()}

    for name, to_owner in TO_OWNER.items():
        assert plain(decode_to_owner(bodies[name])) == plain(to_owner), name
    for name, to_client in TO_CLIENT.items():
        assert plain(decode_to_client(bodies[name])) == plain(to_client), name


def test_each_kind_of_message_has_its_bytes_there() -> None:
    """A kind without them could change unseen."""
    assert {type(message) for message in TO_OWNER.values()} == set(get_args(ToOwner))
    assert {type(message) for message in TO_CLIENT.values()} == set(get_args(ToClient))
