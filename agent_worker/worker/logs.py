"""Log lines of the worker's commands, on standard error: what happened, and its fields."""

import logging

_PLAIN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_NOISY = ("aiohttp.access", "asyncio", "httpx", "httpcore", "openai", "ray")


class FieldsFormatter(logging.Formatter):
    """``12:00:01.234 WARNING agent_worker.worker.takeover an agent died attempt=1 outcome=dispatched``."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s.%(msecs)03d %(levelname)s %(name)s %(message)s", datefmt="%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        """One line, and a traceback where there is one."""
        fields = {name: value for name, value in vars(record).items() if name not in _PLAIN and name[0] != "_"}
        line = super().format(record)
        first, newline, rest = line.partition("\n")
        told = "".join(f" {name}={value}" for name, value in sorted(fields.items()))
        return first + told + newline + rest


def set_up(*, verbose: bool) -> None:
    """Log to standard error. Job processes send theirs to the worker, which writes them."""
    handler = logging.StreamHandler()
    handler.setFormatter(FieldsFormatter())
    logging.basicConfig(level=logging.DEBUG if verbose else logging.INFO, handlers=[handler], force=True)
    for name in _NOISY:
        logging.getLogger(name).setLevel(logging.WARNING)
