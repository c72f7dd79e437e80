"""The double that applications test with: what it has been sent, and what it does when it is told to."""

import pytest

from conversation_actors import FunctionCall, FunctionCallOutput, Message
from conversation_actors.testing import backend_double
from tests.support.backend_contract import speaking, stored, whose


async def test_it_tells_what_it_was_sent_in_order_and_without_repeats() -> None:
    """As the models that the document is made of."""
    async with backend_double() as backend, speaking(backend.url) as speaker:
        left = {**whose("c", "participant.left"), "identity": "ada", "name": "Ada", "seconds": 3.5}
        await speaker.store("c", "i", "Hello", key="evt_1")
        await speaker.store("c", "i", "Hello", key="evt_1")
        await speaker.deliver("/v1/participants/left", left)
        assert [one.type for one in backend.deliveries("c")] == ["message.stored", "participant.left"]
        assert [(one.id, one.text) for one in backend.messages("c")] == [("i", "Hello")]
        assert backend.messages("c", tenant="other") == []
        assert [one.status for one in backend.requests] == [204, 204, 204]
        assert backend.requests[0].headers["Idempotency-Key"] == "evt_1"
        assert backend.requests[2].body == left


async def test_it_remembers_what_a_test_gives_it() -> None:
    """Items of any kind come back as they are stored."""
    items = [
        Message(role="user", content="Where is it?"),
        FunctionCall(call_id="1", name="find", arguments="{}"),
        FunctionCallOutput(call_id="1", name="find", output="here"),
    ]
    async with backend_double() as backend, speaking(backend.url) as speaker:
        backend.remember("c", *items)
        query = {"conversation_id": "c", "tenant": speaker.tenant, "limit": "9"}
        _, answer = await speaker.ask("GET", "/v1/messages", query=query)
    assert [one["item"] for one in answer["messages"]] == [item.to_dict() for item in items]
    assert [one["role"] for one in answer["messages"]] == ["user", None, None]


async def test_it_fails_as_long_as_it_is_told_to() -> None:
    """Whatever it is asked, and keeps nothing meanwhile."""
    async with backend_double() as backend, speaking(backend.url) as speaker:
        backend.fail_with(503)
        headers = {"Idempotency-Key": "evt_1"}
        status, _ = await speaker.ask("POST", "/v1/messages", body=stored("c", "i", "Hello"), headers=headers)
        assert status == 503
        assert backend.messages("c") == []
        backend.fail_with(None)
        await speaker.store("c", "i", "Hello", key="evt_1")
        assert len(backend.messages("c")) == 1


async def test_it_answers_with_the_context_that_a_test_gives_it() -> None:
    """Nothing at first."""
    async with backend_double() as backend, speaking(backend.url) as speaker:
        assert await speaker.context("ada") == []
        backend.context = ["Ada waits for order 1042."]
        assert await speaker.context("ada") == ["Ada waits for order 1042."]


async def mistaken() -> None:
    """Send what is no message."""
    wrong = {**whose("c", "message.stored"), "message": {"text": "secret", "item_type": "message"}}
    async with backend_double() as backend, speaking(backend.url) as speaker:
        await speaker.ask("POST", "/v1/messages", body=wrong, headers={"Idempotency-Key": "evt_1"}, fits=False)


async def lost() -> None:
    """Ask at a path that is not in the document."""
    async with (
        backend_double() as backend,
        speaking(backend.url) as speaker,
        speaker.session.get(f"{backend.url}/v1/nowhere") as answer,
    ):
        assert answer.status == 404


async def failing() -> None:
    """Fail for a reason of its own, beside a request that did not fit."""
    async with backend_double() as backend:
        backend.faults.append("something")
        raise ZeroDivisionError


async def test_a_request_that_does_not_fit_fails_the_test_at_its_end() -> None:
    """By its path and field, and not by what somebody said in it."""
    with pytest.raises(AssertionError, match=r"POST /v1/messages: message\.id: ") as caught:
        await mistaken()
    assert "secret" not in str(caught.value)


async def test_a_path_that_is_not_in_the_document_fails_the_test_too() -> None:
    """It is answered with 404."""
    with pytest.raises(AssertionError, match="GET /v1/nowhere"):
        await lost()


async def test_a_failure_of_the_test_itself_is_not_covered_up() -> None:
    """Its own error comes out."""
    with pytest.raises(ZeroDivisionError):
        await failing()
