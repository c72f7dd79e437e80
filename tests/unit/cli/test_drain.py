"""Saving all conversations of a cluster before it is stopped."""

from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray.exceptions import ActorDiedError, ActorUnavailableError

from conversation_actors.errors import CorruptStateError, StoreUnavailableError
from conversation_actors.runtime import cluster

LEFT = "left"


class Owner:
    """An owner that answers one thing after the other, and is gone for good once it has `LEFT`."""

    def __init__(self, *answers: object) -> None:
        """Answer so each time."""
        self._answers = list(answers)
        self.asked = 0
        self.passivate = SimpleNamespace(remote=self._passivate)

    def find(self, _name: str, _namespace: str) -> "Owner":
        """Be found by name, while there is one."""
        if self._answers[:1] == [LEFT]:
            message = "no such actor"
            raise ValueError(message)
        return self

    async def _passivate(self) -> Any:
        self.asked += 1
        answer = self._answers.pop(0)
        if isinstance(answer, ActorDiedError | ActorUnavailableError):
            raise answer
        return answer


@pytest.mark.parametrize(
    ("answers", "saved", "asked"),
    [
        ([True], 1, 1),
        ([ActorDiedError(), LEFT], 1, 1),
        ([ActorDiedError(), True], 1, 2),
        ([ActorUnavailableError("away", b"0" * 16), ActorDiedError(), LEFT], 1, 2),
        ([StoreUnavailableError("away"), True], 1, 2),
        ([CorruptStateError("damaged", key="k", position=0)], 0, 1),
        ([LEFT], 1, 0),
    ],
    ids=["answers", "answer-lost", "crashed-and-back", "away-and-left", "store-away", "damaged", "left-before"],
)
async def test_who_has_left_is_saved(
    answers: list[object], saved: int, asked: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether or not its answer has come: it leaves right behind it. Who crashed is there again, and asked again."""
    owner = Owner(*answers)
    name = {"namespace": cluster.NAMESPACE, "name": "conversation:default:c"}
    monkeypatch.setattr(ray, "get_actor", owner.find)
    monkeypatch.setattr(ray.util, "list_named_actors", lambda _all: [name])
    assert await cluster.drain(10.0) == (saved, 1)
    assert owner.asked == asked


async def test_no_conversation_is_none_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other actors of the cluster are left alone."""
    monkeypatch.setattr(ray.util, "list_named_actors", lambda _all: [{"namespace": "x", "name": "y"}])
    assert await cluster.drain(10.0) == (0, 0)
