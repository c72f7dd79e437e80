"""Waking the owner of a conversation whose stored state is shown already."""

from conversation_actors.backoff import Backoff
from conversation_actors.client.owner import RemoteOwner
from conversation_actors.errors import ConversationNotFoundError
from conversation_actors.failures import Failures
from conversation_actors.timing import TIMING, Timing


async def wake(owner: RemoteOwner, failures: Failures, *, timing: Timing = TIMING) -> None:
    """Return when the owner has answered, or when the conversation is gone: one that was deleted is not made again.

    Whatever else fails is tried again after a pause. Every failure is counted as `opening`. Nobody has to be told of
    it: a call that needs the owner asks for it itself, and raises what it finds.
    """
    backoff = Backoff(timing.opening)
    while True:
        try:
            await owner.confirm()  # without a cluster to ask, opening would try to join one for all of `timeouts.open`
            await owner.open(create=False)
        except ConversationNotFoundError as error:
            failures.note("opening", error)
            return
        except Exception as error:  # noqa: BLE001  # a handle must not wait unnoticed for an owner that nobody starts
            failures.note("opening", error)
        else:
            return
        await backoff.wait()
