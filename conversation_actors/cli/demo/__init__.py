"""``conversation-actors demo``: a call whose processes are killed one after the other, and what is left of it."""
