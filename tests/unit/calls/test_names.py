"""Names of attributes, as agents of each role have them."""

from conversation_actors.calls import names


def test_an_attribute_of_a_role_is_read_back() -> None:
    """Also if the role has dots; what is nobody's is the application's."""
    for role in ("agent", "interpreter", "house.interpreter"):
        assert names.name_of_role(names.attribute_of_role(names.AGENT, role)) == (names.AGENT, role)
    assert names.name_of_role(names.OUTCOME) == (names.OUTCOME, "agent")
    assert names.name_of_role("livekit.role.") == ("livekit.role.", "agent")
