"""A program that records something and is ended by SIGTERM: ``ended.py HOW ID``.

``plainly`` it does nothing about the signal, ``gracefully`` it has a handler of its own, ``early`` one that it chooses
while Ray is being joined, ``deaf`` it ignores it, and ``threaded`` its conversation is in another thread than the main
one. Prints when it is to be ended.
"""

import asyncio
import signal
import sys
import threading

from conversation_actors import ConversationClient, Message


async def main(how: str, conversation_id: str) -> None:
    """Record a thousand messages, and wait."""
    stopped = asyncio.Event()
    if how == "gracefully":
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    async with ConversationClient() as client:
        if how == "early":
            await asyncio.sleep(0.1)  # the thread that joins has begun
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
        handle = await client.open(conversation_id)
        sys.stdout.write("opened\n")
        sys.stdout.flush()
        await asyncio.to_thread(sys.stdin.readline)
        for number in range(100):
            handle.record(Message(role="user", content=f"{number}"))
        sys.stdout.write("recorded\n")
        sys.stdout.flush()
        if how == "deaf":
            await asyncio.to_thread(sys.stdin.readline)
        else:
            await stopped.wait()
    sys.stdout.write("left\n")


if __name__ == "__main__":
    _, HOW, ID = sys.argv
    if HOW == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if HOW == "threaded":
        thread = threading.Thread(target=asyncio.run, args=(main(HOW, ID),))
        thread.start()
        thread.join()
    else:
        asyncio.run(main(HOW, ID))
