"""What an agent takes out of its context in a real call: the next agent lacks it, and Redis does not hold it."""

import pytest

from tests.adopt.judge import judge
from tests.adopt.shapes import TELLER, Fault, Shape
from tests.adopt.stage import Workers, performance, play
from tests.support.contents import everything
from tests.support.servers import wait_until

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(180)]
SECRETS = (b"4111 1111 1111 1111", b"Orlova")


def _name(value: object) -> str:
    return value.name if isinstance(value, Shape) else str(value)


@pytest.mark.parametrize("workers", [TELLER], indirect=True, ids=_name)
async def test_what_was_taken_out_is_nowhere(workers: Workers) -> None:
    """A number that was changed, a name whose message was taken out: said, used, and in no key of Redis behind that."""
    client = workers.stage.redis.client()

    async def is_forgotten() -> bool:
        held = everything(client)
        return not any(secret in held for secret in SECRETS)

    async with performance(workers, count=1) as call:
        judge(await play(call, Fault.CRASH))
        requests = [one for one in call.asked if any(secret.decode() in str(one.messages) for secret in SECRETS)]
        assert {one.pid for one in requests} == {call.asked[0].pid}, "the successor was told"
        await wait_until(is_forgotten, "Redis to hold nothing of it")
        assert call.room.encode() in everything(client)
    client.close()
