"""Keys: no id can leave its hash tag or spell another id's key."""

import subprocess
import sys

from hypothesis import given, strategies
from redis.crc import key_slot

from conversation_actors.store.keys import Keys

KEYS = Keys()
IDS = strategies.text(strategies.sampled_from("a%{}257BD:é"), min_size=1, max_size=12) | strategies.text(min_size=1)


@given(IDS)
def test_all_keys_of_a_conversation_are_in_one_slot(conversation_id: str) -> None:
    """All keys of a conversation are in one slot, which the id alone decides."""
    keys = KEYS.conversation(conversation_id).with_backlog
    assert len({key_slot(key.encode(errors="replace")) for key in keys}) == 1
    assert all(key.count("{") == key.count("}") == 1 for key in keys)


@given(IDS)
def test_id_can_be_read_back(conversation_id: str) -> None:
    """The meta key gives its id back, and so does that of the backlog, so two ids never share one."""
    keys = KEYS.conversation(conversation_id)
    assert KEYS.conversation_id_of(keys.meta) == conversation_id
    assert KEYS.conversation_id_of_backlog(keys.backlog) == conversation_id


@given(IDS, IDS)
def test_different_ids_have_different_keys(one: str, other: str) -> None:
    """No key of one id is a key of another."""
    if one != other:
        assert not set(KEYS.conversation(one).with_backlog) & set(KEYS.conversation(other).with_backlog)
        assert not set(KEYS.participant_index(one).as_tuple()) & set(KEYS.participant_index(other).as_tuple())


@given(IDS, IDS)
def test_listings_are_in_one_slot_and_no_conversation(identity: str, conversation_id: str) -> None:
    """The keys of a listing share a slot, have one tag, and neither are a conversation's nor look like its meta key."""
    prefix, suffix = KEYS.all_meta.split("*")
    listings = KEYS.participant_index(identity).as_tuple(), KEYS.active_index.as_tuple(), (KEYS.unarchived_index,)
    for keys in listings:
        assert len({key_slot(key.encode(errors="replace")) for key in keys}) == 1
        assert all(key.count("{") == key.count("}") == 1 for key in keys)
        assert not set(keys) & set(KEYS.conversation(conversation_id).with_backlog)
        assert not any(key.startswith(prefix) or key.endswith(suffix) for key in keys)


@given(IDS, IDS)
def test_signs_of_life_are_in_one_slot(lease: str, conversation_id: str) -> None:
    """All keys of a lease, of whatever conversation; no two of them are the same."""
    signs = KEYS.heartbeats(lease)
    keys = (*signs.of(conversation_id), signs.held(conversation_id), signs.expected(conversation_id, lease))
    assert len({key_slot(key.encode(errors="replace")) for key in keys}) == 1
    assert all(key.count("{") == key.count("}") == 1 for key in keys)
    assert len(set(keys)) == 6


@given(IDS, IDS, IDS, IDS)
def test_places_do_not_meet(room: str, agent_name: str, other_room: str, other_name: str) -> None:
    """Who is expected in one room by one name is expected in no other, however the two are written."""
    signs = KEYS.heartbeats("agent")
    if (room, agent_name) != (other_room, other_name):
        assert signs.expected(room, agent_name) != signs.expected(other_room, other_name)


@given(IDS, IDS, IDS, IDS)
def test_signs_of_life_do_not_meet(lease: str, other: str, one_id: str, other_id: str) -> None:
    """Another lease has other keys, and another conversation another end."""
    if lease != other:
        assert not set(KEYS.heartbeats(lease).of(one_id)) & set(KEYS.heartbeats(other).of(one_id))
    if one_id != other_id:
        assert KEYS.heartbeats(lease).of(one_id)[3] != KEYS.heartbeats(lease).of(other_id)[3]


TENANTS = strategies.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,8}\Z")


@given(TENANTS, TENANTS, IDS, IDS)
def test_tenants_share_no_key(tenant: str, other: str, one_id: str, other_id: str) -> None:
    """No key of one tenant is one of another's, whatever the ids are; each is below `conv:<tenant>:`, as ACLs need."""
    if tenant == other:
        return
    mine, theirs = (
        {
            *Keys(name).conversation(conversation_id).with_backlog,
            *Keys(name).heartbeats(conversation_id).of(conversation_id),
            *Keys(name).participant_index(conversation_id).as_tuple(),
            *Keys(name).permanent,
        }
        for name, conversation_id in ((tenant, one_id), (other, other_id))
    )
    assert not mine & theirs
    assert all(key.startswith(f"conv:{tenant}:") for key in mine)


def test_importing_the_store_does_not_import_redis() -> None:
    """Who only needs the contract, or the memory store, does not wait for redis-py."""
    code = "import sys, conversation_actors.store; sys.exit('redis' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
