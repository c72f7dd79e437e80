"""The attributes in which agents keep what they note, by their roles: written and read by one rule."""

import pytest

from conversation_actors.calls.names import AGENT_LEASE, CALL, OUTCOME, USAGE, attribute_of_role, name_of_role


@pytest.mark.parametrize("name", [CALL, USAGE])
@pytest.mark.parametrize("role", [AGENT_LEASE, "interpreter", "a.b", "role.", "livekit.usage", "Übersetzer"])
def test_an_attribute_tells_its_name_and_its_role(name: str, role: str) -> None:
    """Whatever the role is called, dots and all."""
    assert name_of_role(attribute_of_role(name, role)) == (name, role)


def test_the_agents_own_and_the_applications_attributes_are_as_they_are() -> None:
    """The outcome is the call's, whichever role has set it."""
    assert attribute_of_role(USAGE, AGENT_LEASE) == USAGE
    assert attribute_of_role(OUTCOME, "interpreter") == OUTCOME
    assert name_of_role("livekit.role.interpreter.usage") == (USAGE, "interpreter")
    assert name_of_role("livekit.role.broken") == ("livekit.role.broken", AGENT_LEASE)
