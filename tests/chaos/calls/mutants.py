"""Faults planted in copies of the product, each of which the checker has to find."""

from tests.chaos.history.mutants import Mutant

MUTANTS = {
    "a cursor moves before the answer": Mutant(
        "webhooks/lane.py",
        "            refusal = await self._sender.send(self.recipient.parcel(queued, taken.conversation_id))\n",
        "            import asyncio\n"
        "            asyncio.ensure_future(self._sender.send(self.recipient.parcel(queued, taken.conversation_id)))\n"
        "            refusal = None\n",
        ("receiver_away", "deliverer_killed"),
    ),
    "no answer in time counts as one": Mutant(
        "webhooks/sender.py",
        "            return explained(error, self._timeout)\n",
        "            return None if isinstance(error, TimeoutError) else explained(error, self._timeout)\n",
        ("receiver_paused",),
    ),
    "what follows a refusal is sent": Mutant(
        "webhooks/lane.py",
        "            elif not work.go_on(queued, refusal):\n                break\n",
        "            else:\n                work.go_on(queued, refusal)\n",
        ("receiver_killed",),
    ),
    "a record is told of twice": Mutant(
        "calls/course.py",
        "        self._tell(at, [Told(SESSION_RECORDED, record.to_dict())])\n",
        "        self._tell(at, [Told(SESSION_RECORDED, record.to_dict())] * 2)\n",
        ("archiver_killed",),
    ),
    "an agent's word that the call is over is forgotten": Mutant(
        "calls/course.py",
        '        elif role == AGENT_LEASE and "ended" in fields:\n',
        '        elif role == AGENT_LEASE and "ended" in fields and self.state.number % 2:\n',
        ("owner_killed",),
    ),
    "where the feed has read to is stored before what it tells": Mutant(
        "archive/feed.py",
        """        async with self._database.writing("writing what is to be told") as connection:
            return await feed_rows.write(connection, self._tenant, steps)
""",
        """        told = [(step, step.told) for step in steps]
        for step in steps:
            step.told = []
        async with self._database.writing("writing how far it is") as connection:
            good = await feed_rows.write(connection, self._tenant, steps)
        for step, some in told:
            step.told = some
        async with self._database.writing("writing what is to be told") as connection:
            await feed_rows._ADD_HAPPENINGS.execute(connection, [
                (step.cursor.id, self._tenant, step.cursor.conversation_id, one.id, one.type, one.at, one.call_id,
                 one.seq, one.place, feed_rows.json.dumps(one.data))
                for step in good for one in step.told
            ])
            for step in good:
                whose = (step.cursor.id, self._tenant, step.cursor.conversation_id)
                done = [one.data for one in step.told if one.type == "session.recorded"]
                await feed_rows._record(connection, whose, done)
        return good
""",
        ("killed_in_statement",),
    ),
}
