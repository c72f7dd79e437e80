"""Elements of other stores' lists, and where the new ones begin."""

import json
import random
from typing import Any

import pytest

from conversation_actors.items import Message
from conversation_actors.store.redis_lists import ListPattern
from conversation_actors.transfer.list_elements import UNREADABLE, digest_in, digest_of, element
from conversation_actors.transfer.list_positions import REMEMBERED, Place, find_place


def read(fields: Any, before: float = 5.0) -> Any:
    """Read an element of these fields."""
    return element(1, json.dumps(fields).encode(), before=before)


def test_a_message_keeps_everything_that_it_had() -> None:
    """Role, content and time; the rest is kept beside it."""
    one = read({"role": "user", "content": "Hello", "timestamp": 1700000000.5, "lang": "en"})
    assert isinstance(one.item, Message)
    assert (one.item.role, one.item.content, one.item.created_at) == ("user", "Hello", 1700000000.5)
    assert one.item.extra == {"imported": {"lang": "en"}}
    assert (one.problem, one.at) == (None, 1700000000.5)


@pytest.mark.parametrize(
    ("timestamp", "seconds"),
    [
        (1700000000, 1700000000.0),
        (1700000000123, 1700000000.123),
        ("1700000000", 1700000000.0),
        ("2023-11-14T22:13:20Z", 1700000000.0),
        ("2023-11-14T23:13:20+01:00", 1700000000.0),
        ("2023-11-14T22:13:20", 1700000000.0),
        (None, 5.0),
    ],
)
def test_times_in_every_usual_form(timestamp: object, seconds: float) -> None:
    """Seconds, milliseconds, ISO 8601; without one it is that of the element before."""
    assert read({"role": "user", "content": "x", "timestamp": timestamp}).item.created_at == seconds


def test_parts_of_chat_completions_become_words() -> None:
    """The form that most clients of language models store."""
    content = [{"type": "text", "text": "Look"}, {"type": "image_url", "image_url": {"url": "https://example.org"}}]
    told = read({"role": "user", "content": content}).item
    assert told.content == ["Look", content[1]]


@pytest.mark.parametrize(
    ("stored", "problem"),
    [
        (b"Hello", "Expecting value"),
        (b"[1]", "not a JSON object"),
        (b"\xff", "not UTF-8"),
        (b'{"content":"x"}', "role is missing"),
        (b'{"role":"user"}', "content is missing"),
        (b'{"role":"robot","content":"x"}', "role"),
        (b'{"role":"user","content":7}', "content"),
        (b'{"role":"user","content":"x","timestamp":"soon"}', "timestamp"),
        (b'{"role":"user","content":"x","timestamp":true}', "timestamp"),
        (b'{"role":"user","content":"x","timestamp":1e999}', "not a finite number"),
        (b'{"role":"user","content":"x","timestamp":"nan"}', "timestamp"),
        (b'{"role":"user","content":"\\ud800"}', ""),
    ],
)
def test_what_is_no_message_is_kept_and_named(stored: bytes, problem: str) -> None:
    """It is an item of another kind, which no model reads, with the reason."""
    one = element(3, stored, before=5.0)
    assert one.problem is not None
    assert problem in one.problem
    assert (one.item.type, one.at) == (UNREADABLE, 5.0)
    assert digest_in(one.item.id) == digest_of(stored)
    assert one.item.to_stored().size < 9000


def test_a_name_tells_an_element() -> None:
    """Items of other origin have no such name."""
    assert digest_in(read({"role": "user", "content": "x"}).item.id)
    assert [digest_in(name) for name in ("item_1", "imported-x-y", "imported-1-", "missing-3", "imported")] == [
        None
    ] * 5


@pytest.mark.parametrize("text", ["conversation", "a:*:*"])
def test_a_pattern_has_one_place_for_the_id(text: str) -> None:
    """Otherwise nobody knows what the id is."""
    with pytest.raises(ValueError, match=r"needs one \*"):
        ListPattern(text)


def test_a_pattern_means_its_other_characters_as_they_are() -> None:
    """Redis would read brackets and question marks as something else."""
    pattern = ListPattern("chat[1]?:*:history")
    assert pattern.glob == "chat\\[1\\]\\?:*:history"
    assert pattern.id_in("chat[1]?:a:b:history") == "a:b"


def test_new_elements_begin_after_the_last_one() -> None:
    """Wherever the list's front was dropped in between."""
    assert find_place(list("abcde"), list("abc")) == Place(3)
    assert find_place(list("cde"), list("abc")) == Place(1)
    assert find_place(list("abc"), list("abc")) == Place(3)
    assert find_place([], list("abc")) == Place(0)
    assert find_place(list("abc"), []) == Place(0)


def test_what_was_dropped_unread_is_noticed() -> None:
    """Nobody can tell how much that was; what is known already is not taken again."""
    assert find_place(list("xyz"), list("abc")) == Place(0, is_broken=True)
    assert find_place(list("abX"), list("abc")) == Place(2, is_broken=True)
    assert find_place(list("aXc"), list("abc")) == Place(3, is_broken=True)


def test_any_history_of_a_capped_list_is_followed() -> None:
    """Elements come, the front goes, readers come at any time: each element once, or its loss is noticed."""
    chance = random.Random(7)
    for _ in range(300):
        cap, kept, imported = chance.randint(1, 2 * REMEMBERED), list[str](), list[str]()
        total = noticed = 0
        for _ in range(chance.randint(1, 20)):
            added = [str(total + number) for number in range(chance.randint(0, cap + 2))]
            total += len(added)
            lost = max(0, len(added) - cap) or (len(added) == cap and bool(imported))
            kept = (kept + added)[-cap:]
            place = find_place(kept, imported[-REMEMBERED:])
            noticed += place.is_broken
            assert place.is_broken == bool(lost and imported)
            imported += kept[place.index :]
        assert len(set(imported)) == len(imported)
        assert noticed or imported == [str(number) for number in range(total - len(imported), total)]
