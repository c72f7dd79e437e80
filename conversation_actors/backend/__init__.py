"""A business's own back end, by HTTP: it is sent what happens in conversations, and is asked what it knows of them.

What is sent goes through the archive's outbox, as webhooks do; what is asked is asked directly. `models` has the
contract, and docs/backend.openapi.json is the document that is made of it.
"""
