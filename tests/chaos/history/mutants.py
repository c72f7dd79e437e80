"""Faults planted in copies of the product, each of which the checker has to find."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import conversation_actors


@dataclass(frozen=True)
class Mutant:
    """One text of one file in another's place, and the faults that show it."""

    file: str
    old: str
    new: str
    kinds: tuple[str, ...] = ()
    seconds: float = 20.0
    operations: Mapping[str, int] | None = None
    """What clients do, where the usual ones would seldom show the fault."""

    def plant(self, directory: Path) -> Path:
        """Make a copy of the package with this fault; return the directory to import it from."""
        package = Path(conversation_actors.__file__).parent
        copy = directory / package.name
        shutil.copytree(package, copy, ignore=shutil.ignore_patterns("__pycache__"))
        file = copy / self.file
        text = file.read_text()
        if text.count(self.old) != 1:
            message = f"{self.file} has not exactly one place to plant this fault: {self.old!r}"
            raise LookupError(message)
        file.write_text(text.replace(self.old, self.new))
        return directory


MUTANTS = {
    "a write is taken from any owner": Mutant(
        "store/lua/append.lua",
        "if not is_own(meta, life, epoch, owner) then return foreign(meta) end\n",
        "",
        ("owner_doubled",),
    ),
    "an answer does not wait for the write": Mutant(
        "activation/activation.py",
        "await committer.gate.passed(decided.seq)",
        "await asyncio.sleep(0)",
        ("owner_killed_server_frozen",),
    ),
    "requests are forgotten with their owner": Mutant(
        "activation/recovery.py",
        "    return state, state.seq - start\n",
        "    state.requests.clear()\n    return state, state.seq - start\n",
        ("owner_killed", "passivated"),
    ),
    "an owner restores its state over any other's": Mutant(
        "store/base.py",
        "        return any(\n            known[:3] ==",
        "        return True or any(\n            known[:3] ==",
        ("keys_gone_owner_frozen", "owner_doubled"),
    ),
    "a deposed holder may write": Mutant(
        "state/decisions.py",
        "    if lease is not None:\n        _check_lease(state, lease)\n",
        "",
        ("connections_killed",),
        seconds=6.0,
        operations={"acquire": 1, "guarded": 12},  # seldom enough renewed to be lost now and then
    ),
    "a watch goes on in any history": Mutant(
        "activation/activation.py",
        'message = "" if seen is None else objection_to(self._claim, after_seq, seen)',
        'message = ""',
        ("set_back_owners_dead",),
        seconds=30.0,
    ),
}
LINE_MUTANTS = {
    "an answer by a line does not wait for the write": Mutant(
        "activation/activation.py",
        "await committer.gate.passed(decided.seq)",
        "await asyncio.sleep(0)",
        seconds=6.0,
    ),
    "a repeat by the other port is executed again": Mutant(
        "activation/requests.py",
        "        if kept is None:\n            return None\n",
        "        if kept is None or kept is not None:\n            return None\n",
        seconds=6.0,
    ),
    "a batch is decided before its turn": Mutant(
        "activation/turns.py",
        "if turn.after and not (sender.is_whole and turn.after == sender.number):",
        "if turn.after < 0:",
        seconds=6.0,
    ),
    "a request has another name by a line": Mutant(
        "line/executing.py",
        "        read_text(request_id),\n",
        '        "by a line: " + read_text(request_id),\n',
        seconds=3.0,
    ),
}
"""In the line and what it relies on: found by histories in one process, whose faults are all there is."""
