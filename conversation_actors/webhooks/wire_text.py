"""How values are written in what is sent: JSON, and times in it."""

import json
from datetime import UTC, datetime
from typing import Any


def json_text(value: Any) -> str:
    """Return JSON in which every text is one that can be sent: half a surrogate pair becomes a question mark."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.encode(errors="replace").decode()


def moment(at: datetime) -> str:
    """Return a time, which has a zone, as it goes over the wire: ISO 8601, UTC, milliseconds."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
