"""Which of LiveKit's kinds of participants are people; agents, recorders and sources of media are not."""

SIP = "sip"
"""The kind of participant that calls by telephone."""

PEOPLE = {"STANDARD": "standard", "SIP": SIP, "CONNECTOR": "connector"}
"""The kinds that are people, by LiveKit's names, and what they are called in a conversation.

By name: LiveKit's server numbers the kinds otherwise than its rooms do.
"""
