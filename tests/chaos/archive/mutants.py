"""Faults planted in copies of the product, each of which the checker has to find."""

from tests.chaos.history.mutants import Mutant

MUTANTS = {
    "settled before it is committed": Mutant(
        "archive/archiver.py",
        "            written = await self._writer.write_all({name: one.stored for name, one in batches.items()})\n",
        """            for name, one in batches.items():
                await self._backlog.settle(name, backlog=one.backlog, through=one.through)
            written = await self._writer.write_all({name: one.stored for name, one in batches.items()})
""",
        ("archiver_killed_in_statement",),
    ),
    "what comes again is written again": Mutant(
        "archive/passage.py",
        "        if row.seq > self._life.seq:\n            if claim.epoch",
        "        if row.seq > 0:\n            if claim.epoch",
        ("archiver_killed_before_settling",),
    ),
    "taken out of the listing without looking": Mutant(
        "store/redis_backlog.py",
        """        if not await self._unlist(keys, waiting.mark, _REMEMBERED):
            return False
""",
        "        del keys\n",
        ("owner_killed", "archiver_paused"),
    ),
    "pushed whatever the listing says": Mutant(
        "store/lua/_backlog.lua",
        "  if not is_listed then return nil, {'UNLISTED', string.format('%.0f', math.max(listed, unlisted))} end\n",
        "",
        ("owner_killed", "archiver_paused"),
    ),
    "settled by how many instead of up to where": Mutant(
        "store/lua/archive_settle.lua",
        "local through = tonumber(ARGV[2])\n",
        "local through = removed + 1\n",
        ("archiver_paused", "archiver_paused_in_statement"),
    ),
    "a backlog is begun anew by each owner": Mutant(
        "store/lua/_backlog.lua",
        "  if push.is_new then redis.call('HSET', ARCHIVE, 'backlog', push.name, 'listed', push.mark) end\n",
        "  if push.is_new then redis.call('LTRIM', BACKLOG, -1, -1) "
        "redis.call('HSET', ARCHIVE, 'backlog', push.name, 'listed', push.mark) end\n",
        ("owner_killed", "owner_deposed", "postgres_paused"),
    ),
}
