"""docs/settings.md and every other page, held to the settings themselves."""

import re
from datetime import timedelta
from pathlib import Path

import pytest

from conversation_actors.settings import SettingsGroup
from conversation_actors.sources.groups import all_names, names_of
from tests.support.documents import pages
from tests.support.settings_page import GROUPS, PAGE, docstrings, duration, inner_groups, page


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Defaults are not those of a developer's own files."""
    monkeypatch.chdir(tmp_path)
    for name in all_names():
        monkeypatch.delenv(name, raising=False)


def test_the_page_is_what_the_settings_say() -> None:
    """Each field, its default and its meaning; `python -m tests.support.settings_page` writes it anew."""
    assert PAGE.read_text() == page()


def test_every_group_is_on_the_page() -> None:
    """Wherever it is defined."""
    ours = {group for group in SettingsGroup.__subclasses__() if not group.__name__.startswith("_")}
    assert {group for group in ours if group.__module__.startswith(("conversation_actors.", "agent_worker."))} == set(
        GROUPS
    )


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.__name__)
def test_every_setting_says_what_it_means(group: type[SettingsGroup]) -> None:
    """In the line behind it."""
    fields = group.model_fields.keys() - inner_groups(group)
    assert fields <= docstrings(group).keys()


def test_no_page_names_a_setting_that_does_not_exist() -> None:
    """A renamed one would stay in README.md or docs for ever."""
    text = "\n".join(path.read_text() for path in pages())
    named = set(re.findall(r"`((?:CONVERSATION|AGENT)_[A-Z_]*[A-Z])(?:=[^`]*)?`", text))
    known = {name for group in GROUPS for names in names_of(group).values() for name in names}
    assert named - known == set()
    assert named


@pytest.mark.parametrize(
    ("seconds", "text"), [(604_800, "7d"), (5400, "90m"), (3600, "1h"), (45, "45s"), (0.75, "750ms"), (1.5, "1500ms")]
)
def test_a_default_is_written_as_it_may_be_set(seconds: float, text: str) -> None:
    """And so shows the form."""
    assert duration(timedelta(seconds=seconds)) == text
