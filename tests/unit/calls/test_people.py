"""People who come, go and come again."""

from dataclasses import replace

from conversation_actors.calls.people import MOST_PEOPLE
from conversation_actors.state import Entry, ParticipantJoined, UpdateParticipant
from tests.support.call_entries import START, Conversation, fold_all, records_of


def told_of_people(call: Conversation) -> list[tuple[str, str]]:
    """What is told of whom."""
    return [(one.type, one.data["identity"]) for one in call.told() if one.type.startswith("participant.")]


def test_somebody_who_leaves_and_comes_again_has_returned() -> None:
    """The record has both visits, and the seconds of each."""
    call = Conversation()
    call.take(0, "job-1")
    call.come(10, name="Ada")
    call.go(30)
    call.come(50)
    call.end(60)

    (person,) = call.record().participants

    assert told_of_people(call) == [
        ("participant.joined", "ada"),
        ("participant.left", "ada"),
        ("participant.returned", "ada"),
    ]
    assert (person.name, person.joined_at, person.left_at) == ("Ada", START + 10, None)
    assert (person.visits, person.seconds, person.returned) == (2, 30, True)


def test_another_device_is_no_other_visit() -> None:
    """Somebody leaves with the last device."""
    call = Conversation()
    call.take(0, "job-1")
    call.come(10, device="phone")
    call.come(20, device="desk")
    call.come(21, device="desk")
    call.go(30, device="phone")
    call.go(40, device="desk")
    call.end(60)

    (person,) = call.record().participants

    assert told_of_people(call) == [("participant.joined", "ada"), ("participant.left", "ada")]
    assert (person.visits, person.seconds, person.left_at) == (1, 30, START + 40)


def test_a_leaving_tells_how_long_the_visit_was() -> None:
    """In seconds."""
    call = Conversation()
    call.come(10)
    call.go(30)
    call.come(50)
    call.go(51)

    left = [one.data["seconds"] for one in call.told() if one.type == "participant.left"]

    assert left == [20, 1]


def test_somebody_from_an_earlier_call_returns() -> None:
    """The conversation knows the person."""
    call = Conversation()
    call.take(0, "job-1")
    call.come(1)
    call.go(5)
    call.end(6)
    call.take(100, "job-2")
    call.come(101)
    call.end(110)

    _, second = call.records()

    assert told_of_people(call)[-1] == ("participant.returned", "ada")
    assert (second.participants[0].visits, second.participants[0].returned) == (1, True)


def test_a_leaving_that_is_missing_is_known_by_the_next_join() -> None:
    """Its count says that the person was gone in between."""
    call = Conversation()
    call.take(0, "job-1")
    call.come(1)
    call.go(5)
    call.come(9)
    call.end(20)
    lacking = [entry for entry in call.entries if entry.at != START + 5]

    told = fold_all(lacking)
    (record,) = records_of(told)

    assert [one.type for one in told if one.type.startswith("participant.")] == [
        "participant.joined",
        "participant.returned",
    ]
    assert (record.participants[0].visits, record.participants[0].seconds, record.gaps) == (2, 19, ((4, 4),))


def test_a_name_that_changes_is_in_the_record() -> None:
    """As it was last."""
    call = Conversation()
    call.come(0, name="A.")
    call.ask(1, UpdateParticipant(identity="ada", name="Ada"))
    call.close(2)

    assert call.record().participants[0].name == "Ada"


def test_of_very_many_people_those_who_left_first_are_not_listed() -> None:
    """The record stays bounded, and says how many are left out."""
    call = Conversation()
    call.take(0, "job-1")
    for number in range(MOST_PEOPLE + 7):
        call.come(2 * number, f"person-{number}")
        call.go(2 * number + 1, f"person-{number}")
    call.end(1000)

    record = call.record()

    assert (len(record.participants), record.left_out) == (MOST_PEOPLE, 7)
    assert record.participants[0].identity == "person-7"


def test_a_clock_that_went_back_takes_no_seconds_away() -> None:
    """Entries of one conversation never do that; what is read all the same counts as later."""
    call = Conversation()
    call.come(10)
    joined = call.entries[0]
    earlier = ParticipantJoined(replace(call.state.participants["ada"], identity="bob"), "web")

    told = fold_all([joined, Entry(2, 1, START - 50, earlier)])

    assert [one.at for one in told][:3] == [START + 10] * 3
    assert records_of(told)[0].duration == 0
