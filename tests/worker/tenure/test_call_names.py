"""What agents write of a call is what the fold of calls reads."""

from agent_worker.session import notes
from agent_worker.tenure import role, succession
from conversation_actors.calls import names


def test_agents_write_the_names_that_the_fold_reads() -> None:
    """Those that both sides have of their own; the others are imported."""
    assert notes.ERROR == names.ERROR
    assert role.ROLE_FIELD == names.ROLE_FIELD
    assert succession.REFUSED == names.REFUSED
