"""The conversation as a state machine: no I/O, no clock, no threads.

A *command* may be refused; `decide` turns it into *events*, which happened and are never refused;
`ConversationState.apply` is the only way the state changes. Same entries, same state.
"""

from conversation_actors.state.commands import (
    AcquireLease,
    AppendItems,
    ClearHistory,
    CloseConversation,
    Command,
    Guard,
    JoinParticipant,
    LeaveParticipant,
    ReleaseLease,
    ReopenConversation,
    SetAttributes,
    SetRetention,
    SetSummary,
    UpdateParticipant,
)
from conversation_actors.state.conversation import ConversationState, Remembered
from conversation_actors.state.decisions import decide
from conversation_actors.state.events import (
    AttributesChanged,
    ConversationClosed,
    ConversationReopened,
    Entry,
    Event,
    HistoryCleared,
    ItemsAppended,
    ItemsEvicted,
    LeaseAcquired,
    LeaseReleased,
    NothingChanged,
    ParticipantForgotten,
    ParticipantJoined,
    ParticipantLeft,
    ParticipantUpdated,
    RetentionChanged,
    SummaryChanged,
)
from conversation_actors.state.facts import Closing, Lease, Limits, Participant, Summary
from conversation_actors.state.window import Window

__all__ = [
    "AcquireLease",
    "AppendItems",
    "AttributesChanged",
    "ClearHistory",
    "CloseConversation",
    "Closing",
    "Command",
    "ConversationClosed",
    "ConversationReopened",
    "ConversationState",
    "Entry",
    "Event",
    "Guard",
    "HistoryCleared",
    "ItemsAppended",
    "ItemsEvicted",
    "JoinParticipant",
    "Lease",
    "LeaseAcquired",
    "LeaseReleased",
    "LeaveParticipant",
    "Limits",
    "NothingChanged",
    "Participant",
    "ParticipantForgotten",
    "ParticipantJoined",
    "ParticipantLeft",
    "ParticipantUpdated",
    "ReleaseLease",
    "Remembered",
    "ReopenConversation",
    "RetentionChanged",
    "SetAttributes",
    "SetRetention",
    "SetSummary",
    "Summary",
    "SummaryChanged",
    "UpdateParticipant",
    "Window",
    "decide",
]
