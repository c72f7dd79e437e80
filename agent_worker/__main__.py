"""``python -m agent_worker``."""

from agent_worker.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
