"""Every key this package uses is made here, and nowhere else.

    conv:{<id>}:meta                    hash    epoch, owner, seq, base, …   TTL
    conv:{<id>}:snapshot                string  state at `base`              TTL
    conv:{<id>}:journal                 list    entries first+1 … seq        TTL
    conv:index:active                   zset    every conversation           permanent, trimmed by age
    conv:index:participant:<identity>   zset    conversations of one person  TTL
    conv:index:{lease:<name>}:deadlines zset    conversations by deadline    TTL
    conv:index:{lease:<name>}:holders   hash    who shows signs of life      TTL
    conv:index:{lease:<name>}:ended:<id> string there for a while, behind one's end

The braces are a hash tag: on Redis Cluster one conversation lives in one slot, and so do the signs of life of
one lease's holders. ``%``, ``{`` and ``}``
inside an id are percent-encoded, so that no id can end the tag early or spell another id's key.
"""

from dataclasses import dataclass
from urllib.parse import unquote

from conversation_actors.errors import InvalidInputError

ACTIVE_INDEX = "conv:index:active"
PERMANENT = frozenset({ACTIVE_INDEX})
"""Keys without a TTL. Any other key without one is a defect."""
ALL_META = "conv:{*}:meta"
"""Matches the meta key of every conversation; a glob, in which braces mean themselves."""

_PREFIX = "conv:{"
_META_SUFFIX = "}:meta"
_ENCODED = str.maketrans({"%": "%25", "{": "%7B", "}": "%7D"})


@dataclass(frozen=True, slots=True)
class ConversationKeys:
    """The three keys of one conversation, in the order in which every script takes them."""

    meta: str
    snapshot: str
    journal: str

    def as_tuple(self) -> tuple[str, str, str]:
        """Return the keys in the order of the scripts' KEYS."""
        return self.meta, self.snapshot, self.journal


def conversation_keys(conversation_id: str) -> ConversationKeys:
    """Make the keys of one conversation. An empty id has none: an empty hash tag is no hash tag."""
    if not conversation_id:
        message = "conversation_id: must not be empty"
        raise InvalidInputError(message, field="conversation_id")
    return tagged_keys(conversation_id.translate(_ENCODED))


def tagged_keys(tag: str) -> ConversationKeys:
    """Make keys around a tag that is encoded already, or that no id can spell (a lone ``%``)."""
    return ConversationKeys(
        meta=f"{_PREFIX}{tag}{_META_SUFFIX}", snapshot=f"conv:{{{tag}}}:snapshot", journal=f"conv:{{{tag}}}:journal"
    )


@dataclass(frozen=True, slots=True)
class HeartbeatKeys:
    """The keys on which the holders of one lease show signs of life."""

    deadlines: str
    holders: str
    ended_prefix: str

    @property
    def shared(self) -> tuple[str, str]:
        """The two keys of all conversations, in the order of the scripts' KEYS."""
        return self.deadlines, self.holders

    def of(self, conversation_id: str) -> tuple[str, str, str]:
        """Those two, and the one that tells that a conversation has ended."""
        return *self.shared, self.ended_prefix + conversation_id.translate(_ENCODED)


def heartbeat_keys(lease: str) -> HeartbeatKeys:
    """Make the keys of one lease's signs of life."""
    return tagged_heartbeat_keys(lease.translate(_ENCODED))


def tagged_heartbeat_keys(tag: str) -> HeartbeatKeys:
    """Make them around a name that is encoded already, or that no lease can spell (a lone ``%``)."""
    prefix = f"conv:index:{{lease:{tag}}}"
    return HeartbeatKeys(f"{prefix}:deadlines", f"{prefix}:holders", f"{prefix}:ended:")


def participant_index(identity: str) -> str:
    """Make the key under which one participant's conversations are listed."""
    return f"conv:index:participant:{identity.translate(_ENCODED)}"


def conversation_id_of(meta_key: str) -> str:
    """Read the id back from a key that matches `ALL_META`."""
    return unquote(meta_key[len(_PREFIX) : -len(_META_SUFFIX)])
