#!/bin/sh
# What Ray believes to be Python on a node with a fork server. `start_node` names the real one.
# -I -S: no site-packages, no user settings; this start must cost nothing.
exec "${CONVERSATION_NODE_PYTHON:?set by conversation-actors start}" -I -S "${0%.sh}.py" "$@"
