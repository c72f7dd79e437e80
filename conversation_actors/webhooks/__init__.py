"""Webhooks: what happens in calls is sent to the endpoints of a business.

A `Deliverer` takes happenings from the archive's outbox, and a `Sender` of each destination sends them: at least once,
and in order within a conversation. docs/webhooks.md has what receivers and operators may rely on.
"""
