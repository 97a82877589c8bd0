"""A worker as most write it: one queue-group subscription, one message after the other.

What credits are compared with; `python -m bus_worker.bench.plain URL` runs it.
"""

import asyncio
import sys
from typing import Any

from bus_worker.bus import Address, connect
from bus_worker.messages import pack, unpack
from bus_worker.signals import StopSignals

__all__ = ["SUBJECT", "serve"]

SUBJECT = "bench.plain"


async def serve(url: str) -> None:
    """Answer until told to stop; a request says how many seconds it takes."""
    stop = StopSignals().stop
    async with connect(Address((url,))) as bus:

        async def answer(msg: Any) -> None:
            request = unpack(msg.data)
            await asyncio.sleep(request["seconds"])
            reply = {"text": f"{len(request['audio'])} bytes"}
            await bus.client.publish(msg.reply, pack(reply))

        await bus.client.subscribe(SUBJECT, queue="plain", cb=answer)
        await bus.confirmed()
        sys.stderr.write('{"event": "ready"}\n')
        sys.stderr.flush()
        await stop.wait()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1]))
