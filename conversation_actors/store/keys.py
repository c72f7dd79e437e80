"""Every key this package uses is made here, and nowhere else.

    conv:<tenant>:{<id>}:meta                     hash    epoch, owner, seq, base, …   TTL
    conv:<tenant>:{<id>}:snapshot                 string  state at `base`              TTL
    conv:<tenant>:{<id>}:journal                  list    entries first+1 … seq        TTL
    conv:<tenant>:{<id>}:backlog                  list    what waits for the archive   TTL of its own
    conv:<tenant>:{<id>}:archive                  hash    how far that is, who has it  TTL of its own
    conv:<tenant>:index:{active}                  zset    every conversation           permanent
    conv:<tenant>:index:{active}:expiries         zset    when each leaves that        permanent
    conv:<tenant>:index:{participant:<identity>}  zset    conversations of one person  TTL
                         …{…}:expiries            zset    when each leaves that        TTL
    conv:<tenant>:index:{unarchived}              zset    those that have a backlog    permanent
    conv:<tenant>:index:{lease:<name>}:beats      zset    conversations by last beat   TTL
    conv:<tenant>:index:{lease:<name>}:holders    hash    who shows signs of life      TTL
    conv:<tenant>:index:{lease:<name>}:clock      hash    which beats, how many        TTL
    conv:<tenant>:index:{lease:<name>}:ended:<id> string  there for a while, after one's end
                         …{…}:held:<holder>       set     what one holder has begun    TTL
                         …{…}:expected:<r>:<a>    hash    who is called to a room      TTL

The keys of the archive are there only if one is configured. The braces are a hash tag: on Redis Cluster one
conversation lives in one slot, and so do the keys of one listing, and the signs of life of one lease's holders. ``%``,
``{`` and ``}`` inside an id are percent-encoded, so that no id can end the tag early or spell another id's key. A
tenant's name has none of them (`settings.Tenant`), so that ``~conv:<tenant>:*`` is all that an ACL user of one tenant
needs.
"""

from dataclasses import dataclass
from urllib.parse import unquote

from conversation_actors.errors import InvalidInputError
from conversation_actors.settings import DEFAULT_TENANT

_META_SUFFIX = "}:meta"
_BACKLOG_SUFFIX = "}:backlog"
_ENCODED = str.maketrans({"%": "%25", "{": "%7B", "}": "%7D"})
_PART = str.maketrans({"%": "%25", "{": "%7B", "}": "%7D", ":": "%3A"})
"""Of a name that another one follows after a colon."""


@dataclass(frozen=True, slots=True)
class ConversationKeys:
    """The three keys of one conversation, in the order in which every script takes them, and the two of its backlog."""

    meta: str
    snapshot: str
    journal: str
    backlog: str
    archive: str

    def as_tuple(self) -> tuple[str, str, str]:
        """Return the keys in the order of the scripts' KEYS."""
        return self.meta, self.snapshot, self.journal

    @property
    def queue(self) -> tuple[str, str]:
        """The keys of the backlog, in the order of the scripts' KEYS."""
        return self.backlog, self.archive

    @property
    def with_backlog(self) -> tuple[str, str, str, str, str]:
        """All five keys, in the order of the scripts' KEYS."""
        return *self.as_tuple(), *self.queue


@dataclass(frozen=True, slots=True)
class ListingKeys:
    """The two keys of one listing, in the order in which every script takes them."""

    activity: str
    expiries: str

    def as_tuple(self) -> tuple[str, str]:
        """Return the keys in the order of the scripts' KEYS."""
        return self.activity, self.expiries


@dataclass(frozen=True, slots=True)
class HeartbeatKeys:
    """The keys on which the holders of one lease show signs of life."""

    beats: str
    holders: str
    clock: str
    stem: str
    """What the keys begin with that are of one conversation, holder or place."""

    @property
    def shared(self) -> tuple[str, str, str]:
        """The three keys of all conversations, in the order of the scripts' KEYS."""
        return self.beats, self.holders, self.clock

    def of(self, conversation_id: str) -> tuple[str, str, str, str]:
        """Return those three, and the one that tells that a conversation has ended."""
        return *self.shared, f"{self.stem}:ended:{conversation_id.translate(_ENCODED)}"

    def held(self, holder: str) -> str:
        """Return the key that tells what a holder has begun, or is on its way to."""
        return f"{self.stem}:held:{holder.translate(_ENCODED)}"

    def expected(self, room: str, agent_name: str) -> str:
        """Return the key that tells who was called to a room by an agent's name."""
        return f"{self.stem}:expected:{room.translate(_PART)}:{agent_name.translate(_PART)}"


@dataclass(frozen=True, slots=True)
class Keys:
    """All keys of one tenant."""

    tenant: str = DEFAULT_TENANT

    @property
    def active_index(self) -> ListingKeys:
        """The listing of all conversations."""
        return self._listing("active")

    @property
    def unarchived_index(self) -> str:
        """The listing of the conversations that have a backlog."""
        return f"conv:{self.tenant}:index:{{unarchived}}"

    @property
    def permanent(self) -> frozenset[str]:
        """Keys that have no TTL on purpose. Any other without one is a defect."""
        return frozenset({*self.active_index.as_tuple(), self.unarchived_index})

    @property
    def all_meta(self) -> str:
        """A glob that matches the meta key of every conversation; in a glob braces mean themselves."""
        return f"{self._prefix}*{_META_SUFFIX}"

    @property
    def all_backlogs(self) -> str:
        """A glob that matches the backlog of every conversation."""
        return f"{self._prefix}*{_BACKLOG_SUFFIX}"

    def conversation(self, conversation_id: str) -> ConversationKeys:
        """Make the keys of one conversation. An empty id has none: an empty hash tag is no hash tag."""
        if not conversation_id:
            message = "conversation_id: must not be empty"
            raise InvalidInputError(message, field="conversation_id")
        return self.tagged(conversation_id.translate(_ENCODED))

    def tagged(self, tag: str) -> ConversationKeys:
        """Make keys around a tag that is encoded already, or that no id can spell (a lone ``%``)."""
        stem = f"{self._prefix}{tag}"
        return ConversationKeys(
            meta=stem + _META_SUFFIX,
            snapshot=f"{stem}}}:snapshot",
            journal=f"{stem}}}:journal",
            backlog=stem + _BACKLOG_SUFFIX,
            archive=f"{stem}}}:archive",
        )

    def conversation_id_of(self, meta_key: str) -> str:
        """Read the id back from a key that matches `all_meta`."""
        return unquote(meta_key[len(self._prefix) : -len(_META_SUFFIX)])

    def conversation_id_of_backlog(self, backlog_key: str) -> str:
        """Read the id back from a key that matches `all_backlogs`."""
        return unquote(backlog_key[len(self._prefix) : -len(_BACKLOG_SUFFIX)])

    def heartbeats(self, lease: str) -> HeartbeatKeys:
        """Make the keys of one lease's signs of life."""
        return self.tagged_heartbeats(lease.translate(_ENCODED))

    def tagged_heartbeats(self, tag: str) -> HeartbeatKeys:
        """Make them around a name that is encoded already, or that no lease can spell (a lone ``%``)."""
        prefix = f"conv:{self.tenant}:index:{{lease:{tag}}}"
        return HeartbeatKeys(f"{prefix}:beats", f"{prefix}:holders", f"{prefix}:clock", prefix)

    def participant_index(self, identity: str) -> ListingKeys:
        """Make the keys under which one participant's conversations are listed."""
        return self._listing(f"participant:{identity.translate(_ENCODED)}")

    def _listing(self, tag: str) -> ListingKeys:
        stem = f"conv:{self.tenant}:index:{{{tag}}}"
        return ListingKeys(stem, f"{stem}:expiries")

    @property
    def _prefix(self) -> str:
        return f"conv:{self.tenant}:{{"
