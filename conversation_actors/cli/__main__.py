"""``python -m conversation_actors.cli``: the same as the command ``conversation-actors``."""

from conversation_actors.cli.app import main

if __name__ == "__main__":
    main()
