"""The window: the part of the history that is kept, bounded by items and by bytes.

Old items leave first, with three exceptions. System and developer messages stay. A function call and its output leave
together, when the younger of the two is the oldest in the window. The output of a call that left while it was still
running leaves on arrival, because nobody could read it without its call.
"""

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain

from conversation_actors.items import PINNED_ROLES, StoredItem, bytes_of
from conversation_actors.state.facts import Limits

CALL = "function_call"
OUTPUT = "function_call_output"

Group = str | tuple[str]
"""The name of what leaves together: an item by itself, by its id, or all items of one call, by the call's id in a
tuple."""


def _group(item: StoredItem) -> Group:
    return (item.call_id,) if item.call_id else item.id


class Window:
    """Items in the order in which they came, by id. Putting or removing one costs the same at any length."""

    def __init__(self, items: Iterable[StoredItem] = (), orphans: Iterable[str] = ()) -> None:
        """Rebuild a window from its `items`, in order, and the `orphans` that it reported."""
        # OrderedDict and not dict: taking the first key of a dict costs more the more were taken before.
        self._items: OrderedDict[str, StoredItem] = OrderedDict()
        self._groups: OrderedDict[Group, list[str] | None] = OrderedDict()
        """Ids of each group's items, oldest group first; None for an item by itself."""
        self._orphans: OrderedDict[str, None] = OrderedDict.fromkeys(orphans)
        self.size = 0
        self.pinned_count = 0
        self.pinned_size = 0
        self.put(items)

    def __len__(self) -> int:
        """Return the number of items in the window."""
        return len(self._items)

    def __iter__(self) -> Iterator[StoredItem]:
        """Iterate over the items, oldest first."""
        return iter(self._items.values())

    def __contains__(self, identity: object) -> bool:
        """Tell whether an item of this id is in the window."""
        return identity in self._items

    def get(self, identity: str) -> StoredItem | None:
        """Return the item of this id, or None if it is not in the window."""
        return self._items.get(identity)

    def together_with(self, identities: Iterable[str]) -> list[StoredItem]:
        """Return the items of these ids that are here, each with all items of its call, in no particular order."""
        found: dict[str, StoredItem] = {}
        for identity in identities:
            item = self._items.get(identity)
            if item is not None:
                members = [item] if item.pinned else self._members(_group(item), {})
                found.update((member.id, member) for member in members)
        return list(found.values())

    @property
    def orphans(self) -> tuple[str, ...]:
        """Ids of calls that left before their first output came, oldest first; `remove` bounds their number."""
        return tuple(self._orphans)

    def put(self, items: Iterable[StoredItem]) -> None:
        """Add items at the end. An item whose id is here already takes the old one's place."""
        here = self._items
        for item in items:
            identity, _, role, call_id, data = item  # all at once, for speed: three places do this to every item
            old = here.get(identity)
            here[identity] = item
            growth = len(data) - (len(old.data) if old else 0)
            self.size += growth
            if role in PINNED_ROLES:
                self.pinned_count += 0 if old else 1
                self.pinned_size += growth
            elif old is None and call_id:
                self._join_group((call_id,), identity)
            elif old is None:
                self._groups[identity] = None

    def remove(self, items: Sequence[StoredItem], *, orphans_kept: int) -> None:
        """Take items out, except those that are not here. Keep only the latest `orphans_kept` orphans."""
        for item in items:
            old = self._items.pop(item.id, None)
            if old is None:
                continue
            identity, _, role, call_id, data = old
            self.size -= len(data)
            if role in PINNED_ROLES:
                self.pinned_count -= 1
                self.pinned_size -= len(data)
            elif call_id:
                self._leave_group((call_id,), identity)
            else:
                del self._groups[identity]
        calls = [item.call_id for item in items if item.type == CALL]
        if not calls:
            return
        answered = {item.call_id for item in items if item.type == OUTPUT}
        for call_id in calls:
            if call_id not in answered:
                self._orphans[call_id] = None
                self._orphans.move_to_end(call_id)
        while len(self._orphans) > orphans_kept:
            self._orphans.popitem(last=False)

    def evictions(self, arriving: Sequence[StoredItem], limits: Limits) -> tuple[StoredItem, ...]:
        """Return what must leave when `arriving` is put: enough, oldest first, in whole groups. Changes nothing."""
        latest = {item.id: item for item in arriving}
        if len(latest) == len(arriving) and not any(item.call_id or item.id in self._items for item in arriving):
            return self._evictions_by(arriving, limits)
        count, size = len(self._items), self.size
        for item in latest.values():
            old = self._items.get(item.id)
            count += 0 if old else 1
            size += item.size - (old.size if old else 0)
        touched = self._groups_after(latest)
        strays = [group for group, members in touched.items() if self._is_stray(group, members)]
        if not strays and count <= limits.items and size <= limits.bytes:
            return ()
        older = (group for group in self._groups if group not in touched)
        younger = (group for group in touched if group not in strays)
        leaving: list[StoredItem] = []
        for group in chain(strays, older, younger):
            if group not in strays and count <= limits.items and size <= limits.bytes:
                break
            members = touched.get(group) or self._members(group, latest)
            leaving.extend(members)
            count -= len(members)
            size -= bytes_of(members)
        return tuple(leaving)

    def _evictions_by(self, arriving: Sequence[StoredItem], limits: Limits) -> tuple[StoredItem, ...]:
        """Return the same as `evictions`, found more quickly, for new items that are not part of a call."""
        items, count = self._items, len(self._items) + len(arriving)
        size = self.size + bytes_of(arriving)
        if count <= limits.items and size <= limits.bytes:
            return ()
        leaving: list[StoredItem] = []
        for group in self._groups:
            for item in (items[group],) if type(group) is str else self._members(group, {}):
                leaving.append(item)
                size -= len(item.data)
            if count - len(leaving) <= limits.items and size <= limits.bytes:
                return tuple(leaving)
        for item in arriving:
            if item.pinned:
                continue
            leaving.append(item)
            size -= len(item.data)
            if count - len(leaving) <= limits.items and size <= limits.bytes:
                break
        return tuple(leaving)

    def pinned_after(self, arriving: Sequence[StoredItem]) -> tuple[int, int]:
        """Return how many system messages, and how many bytes of them, there would be with `arriving`."""
        count, size = self.pinned_count, self.pinned_size
        pinned = {item.id: item for item in arriving if item.pinned}
        for item in pinned.values():
            old = self._items.get(item.id)
            count += 0 if old else 1
            size += item.size - (old.size if old else 0)
        return count, size

    def _groups_after(self, arriving: dict[str, StoredItem]) -> dict[Group, list[StoredItem]]:
        """Return the groups that gain a member, with all their members, oldest group first."""
        touched: dict[Group, list[StoredItem]] = {}
        for item in arriving.values():
            if item.pinned or item.id in self._items:
                continue
            group = _group(item)
            members = touched.pop(group, None)
            if members is None:
                members = self._members(group, arriving)
            touched[group] = [*members, item]
        return touched

    def _members(self, group: Group, arriving: Mapping[str, StoredItem]) -> list[StoredItem]:
        """Return the items of a group once those `arriving` have taken their places; none of an unknown group."""
        if group not in self._groups:
            return []
        identities = (group,) if isinstance(group, str) else self._groups[group] or ()
        return [arriving.get(identity, self._items[identity]) for identity in identities]

    def _is_stray(self, group: Group, members: list[StoredItem]) -> bool:
        if isinstance(group, str):
            return False
        (call_id,) = group
        return call_id in self._orphans and all(item.type == OUTPUT for item in members)

    def _join_group(self, group: Group, identity: str) -> None:
        members = self._groups.get(group)
        if members is None:
            self._groups[group] = [identity]
        else:
            members.append(identity)
            self._groups.move_to_end(group)

    def _leave_group(self, group: Group, identity: str) -> None:
        members = self._groups[group]
        assert members is not None
        members.remove(identity)
        if not members:
            del self._groups[group]
