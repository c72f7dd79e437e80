"""One call, from its first word to whoever comes next: opening, attaching, the people in the room, the end."""
