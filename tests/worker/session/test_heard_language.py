"""In which language a message was said: the one of its own words."""

import pytest
from livekit.agents import LanguageCode, UserInputTranscribedEvent
from livekit.agents.llm import ChatMessage

from agent_worker.session.heard_language import HeardLanguage
from conversation_actors.items import LANGUAGE


def hear(heard: HeardLanguage, text: str, language: str | None, *, final: bool = True) -> None:
    """The recogniser understands something."""
    code = None if language is None else LanguageCode(language)
    heard.hear(UserInputTranscribedEvent(transcript=text, is_final=final, language=code))


def language_of(heard: HeardLanguage, text: str, **extra: str) -> object:
    """What a message of this text has."""
    message = ChatMessage(role="user", content=[text], extra=dict(extra))
    heard.note_in(message)
    return message.extra.get(LANGUAGE)


def test_a_message_has_the_language_of_the_words_that_were_heard_last() -> None:
    """Once: the next message has words of its own."""
    heard = HeardLanguage()
    hear(heard, "Where is", "en")
    hear(heard, " my order? ", "en-US")

    assert language_of(heard, "Where is my order?") == "en-US"
    assert language_of(heard, "Where is my order?") is None


def test_what_was_typed_meanwhile_has_no_language() -> None:
    """What was heard is a message later."""
    heard = HeardLanguage()
    hear(heard, "Wo ist sie?", "de")

    assert language_of(heard, "typed") is None
    assert language_of(heard, "Wo ist sie?") == "de"


@pytest.mark.parametrize("text", ["", "  "])
def test_words_of_no_language_take_none_from_others(text: str) -> None:
    """Nor do words that are not final, nor silence."""
    heard = HeardLanguage()
    hear(heard, "Hello", "en")
    hear(heard, "Hello there", None)
    hear(heard, "Hello", "fr", final=False)
    hear(heard, text, "fr")

    assert language_of(heard, "Hello there") is None


def test_a_language_that_the_application_has_noted_stays() -> None:
    """It knows better."""
    heard = HeardLanguage()
    hear(heard, "Hello", "en")

    assert language_of(heard, "Hello", language="nl") == "nl"
