"""Positions of one history or another: an activation answers only those of its own."""

from conversation_actors.errors import ConflictError
from conversation_actors.protocol import Request, Seen
from conversation_actors.state import SetAttributes, SetSummary
from conversation_actors.store import Claim


def objection_to(claim: Claim, seq: int, seen: Seen) -> str:
    """Return why a position of what a reader has seen is none of the claim's history; empty if it is one."""
    if seen.life != claim.life:
        return "the position is one of another life of this conversation"
    if not seq or seen.owner in {None, claim.owner}:
        return ""
    end = claim.end_of(seen.owner or "")
    if end is None:
        return f"position {seq} was told by an activation that this one does not know to have been before it"
    return f"entry {seq} was lost: this history went on from {end}" if seq > end else ""


def check_named_position(claim: Claim, request: Request) -> None:
    """Raise `ConflictError` if the position that a command names is none of the claim's history."""
    if request.seen is None:  # first: nearly all commands name none
        return
    match request.command:
        case SetAttributes(expected_seq=int(seq)) | SetSummary(through_seq=seq):
            message = objection_to(claim, seq, request.seen)
        case _:
            return
    if message:
        raise ConflictError(message)
