"""Several agents in one conversation: each has its role, and by it a lease, a heartbeat, attributes and items."""

from conversation_actors import Item
from conversation_actors.calls import names
from conversation_actors.errors import InvalidInputError
from conversation_actors.items import item_from_dict
from conversation_actors.values import check_id

AGENT_ROLE = names.AGENT_LEASE
"""The role of the one agent of a conversation that has no other; its lease has this name too."""
LEASE = AGENT_ROLE
"""The lease that the one agent of a conversation holds; its holder is the job's id. Other roles' have their names."""
AGENT = names.AGENT
"""The attribute that tells who the agent is, or that there is none and why."""
ROLE_FIELD = names.ROLE_FIELD
"""In the stored form of an item that an agent of another role has recorded."""
MAX_ROLE_CHARACTERS = 64


def check_role(role: object) -> str:
    """Return a role; raise `InvalidInputError` if it is none."""
    checked = check_id(role, "role")
    if len(checked) > MAX_ROLE_CHARACTERS:
        message = f"role: {len(checked)} characters; the limit is {MAX_ROLE_CHARACTERS}"
        raise InvalidInputError(message, field="role")
    return checked


def record_role(role: str) -> str:
    """Return the role as heartbeats have it: empty for the one agent."""
    return "" if role == AGENT_ROLE else role


def attribute_name(name: str, role: str) -> str:
    """Return the attribute in which an agent of this role keeps what it calls `name`; the application's stay."""
    return names.attribute_of_role(name, role)


def tagged(item: Item, role: str) -> Item:
    """Return the item as an agent of this role records it."""
    if role == AGENT_ROLE:
        return item
    return item_from_dict({**item.to_dict(), ROLE_FIELD: role})


def own_items(items: tuple[Item, ...], role: str) -> tuple[Item, ...]:
    """Return the items that agents of this role have recorded, and people's, without the tag."""
    if role == AGENT_ROLE and not any(_role_of(item) for item in items):
        return items
    wanted = record_role(role)
    return tuple(_untagged(item) for item in items if _role_of(item) == wanted)


def _role_of(item: Item) -> str:
    extra = item.model_extra
    return str(extra.get(ROLE_FIELD, "")) if extra else ""


def _untagged(item: Item) -> Item:
    if not _role_of(item):
        return item
    return item_from_dict({name: value for name, value in item.to_dict().items() if name != ROLE_FIELD})
