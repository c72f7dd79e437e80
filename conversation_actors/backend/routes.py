"""Which happening goes to which path of a back end, and what its request says."""

from collections.abc import Mapping
from typing import Any, get_args

from conversation_actors.archive.outbox import Queued
from conversation_actors.backend.models import DELIVERIES
from conversation_actors.calls.happenings import HAPPENINGS, REPORTS, life_of, named_call
from conversation_actors.webhooks.payload import SHORTEST, longest, read, shortened, size_of
from conversation_actors.webhooks.wire_text import json_text

ROUTES: Mapping[str, str] = {
    event: path
    for path, model in DELIVERIES.items()
    for event in get_args(model.model_fields["type"].annotation)
    if event in {*HAPPENINGS, *REPORTS}
}
"""Paths of the happenings that a back end is sent, by their types."""


def body(queued: Queued, *, tenant: str, conversation_id: str, most_bytes: int) -> str:
    """Return what is sent of a happening: its data and whose it is, in one JSON object.

    If that is more than `most_bytes`, it has ``"truncated": true``: the item as it is stored is left out, and if that
    is not enough, the longest texts are cut. What is no text stays, and so do ids: it may be more than `most_bytes`.
    Raises `UnsendableError` for a happening that cannot be read.
    """
    told, at = read(queued)
    whose = {
        "type": queued.type, "at": at, "conversation_id": conversation_id, "life": life_of(queued.call_id),
        "call_id": named_call(queued.call_id), "tenant": tenant, "seq": queued.seq,
    }  # fmt: skip

    def written(data: Mapping[str, Any]) -> str:
        return json_text({**data, **whose})

    whole = written(told)
    if size_of(whole) <= most_bytes:
        return whole
    told = {**told, "truncated": True}
    if isinstance(told.get("message"), dict) and told["message"].get("item") is not None:
        told["message"] = {**told["message"], "item": None}
        whole = written(told)
        if size_of(whole) <= most_bytes:
            return whole

    def cut(length: int) -> str:
        return written(shortened(told, length, ids=len(queued.data)))

    return longest(cut, most_bytes) or cut(SHORTEST)
