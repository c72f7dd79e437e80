"""What a line's placeholders become, and which there are."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_worker.lines import LONGEST_SPOKEN_NAME, Welcome, check_line, filled
from agent_worker.settings import CallSettings
from conversation_actors.errors import InvalidInputError


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("Hello, {name}!", "Hello, Ada!"),
        ("{name}, this is visit {visits}.", "Ada, this is visit 3."),
        ("{name} {name}", "Ada Ada"),
        ("Say {{name}}.", "Say {name}."),
        ("Good day.", "Good day."),
        ("", ""),
    ],
)
def test_placeholders_are_filled(line: str, said: str) -> None:
    """As often as they stand there; doubled braces are braces."""
    assert filled(check_line(line), name="Ada", visits=3) == said


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("Hello, {name}!", "Hello!"),
        ("Hello {name}, how are you?", "Hello, how are you?"),
        ("{name}, welcome back.", "Welcome back."),
        ("Hallo {name}", "Hallo"),
        ("{name}", ""),
        ("{visits} {name}", "1"),
    ],
)
def test_a_name_that_is_not_known_is_left_out(line: str, said: str) -> None:
    """With the comma or space that joined it."""
    assert filled(line, name="", visits=1) == said


@pytest.mark.parametrize("name", ["{visits}", "{name.__class__}", "{", "}", "{0}", "%s", "\\1"])
def test_a_name_with_braces_is_text(name: str) -> None:
    """Nothing of it is filled, or fails."""
    assert filled("Hello {name}, {visits}.", name=name, visits=2) == f"Hello {name}, 2."


def test_a_name_is_one_line_of_bounded_length() -> None:
    """A model that speaks is told the line: what somebody typed as a name must not look like more."""
    assert filled("Hello {name}.", name="  Ada\n\tLovelace ", visits=1) == "Hello Ada Lovelace."
    assert len(filled("{name}", name="x" * 10_000, visits=1)) == LONGEST_SPOKEN_NAME


@given(st.text(), st.text(), st.integers(1, 10**6))
def test_every_line_that_is_taken_can_be_filled(line: str, name: str, visits: int) -> None:
    """Whatever is in it, and whoever comes."""
    try:
        check_line(line)
    except ValueError:
        return
    assert isinstance(filled(line, name=name, visits=visits), str)


@pytest.mark.parametrize(
    "line",
    ["Hello {nme}", "Hello {}", "Hello {0}", "Hello {name.real}", "{name[0]}", "{name!r}", "{visits:>9}", "{", "a}"],
)
@pytest.mark.parametrize("variable", ["AGENT_GREETING", "AGENT_WELCOME_BACK", "AGENT_BACK_LINE", "AGENT_FAREWELL"])
def test_a_mistake_in_a_line_is_told_at_once(monkeypatch: pytest.MonkeyPatch, variable: str, line: str) -> None:
    """When the settings are read, and not in the first call; in each language."""
    for value in (f"Hi. {line}", f'{{"en": "Hello", "de": "{line}"}}'):
        monkeypatch.setenv(variable, value)
        with pytest.raises(InvalidInputError) as error:
            CallSettings()
        assert error.value.field.startswith(variable.removeprefix("AGENT_").lower())


def test_a_line_may_begin_with_a_placeholder(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no JSON, although that begins with a brace too."""
    monkeypatch.setenv("AGENT_GREETING", "{name}, welcome!")
    monkeypatch.setenv("AGENT_WELCOME_BACK", ' { "de": "Willkommen zum {visits}. Mal" }')
    settings = CallSettings()
    assert settings.line(Welcome.FIRST, None, name="Ada") == "Ada, welcome!"
    assert settings.line(Welcome.BACK, "de-AT", name="Ada", visits=2) == "Willkommen zum 2. Mal"
    assert settings.line(Welcome.FIRST, None) == "Welcome!"


def test_a_farewell_is_chosen_by_language() -> None:
    """As any line; nothing by default."""
    assert CallSettings().farewell_line("de", name="Ada") == ""
    lines = {"en": "Goodbye, {name}.", "de": "Auf Wiederhören, {name}."}
    assert CallSettings(farewell=lines).farewell_line("de-CH", name="Ada") == "Auf Wiederhören, Ada."
