"""`jobs dead`: jobs that failed, looked at, handed in again, dropped."""

import json
import time
from argparse import Namespace

from bus_worker.cli.terminal import say
from bus_worker.client import DeadLetter, TranscribeClient
from bus_worker.messages import unpack

__all__ = ["act"]


async def act(client: TranscribeClient, args: Namespace) -> int:
    """List them, or do something to one."""
    match args.deed:
        case "show":
            _show(await client.dead.get(args.id))
        case "resubmit":
            say((await client.resubmit(args.id)).id)
        case "drop":
            await client.dead.drop(args.id)
        case _:
            async for letter in client.dead.all():
                say(f"{letter.job_id}  {_time(letter.at)}  {_why(letter)}")
    return 0


def _show(letter: DeadLetter) -> None:
    record = letter.record
    lines = [
        ("job", letter.job_id),
        ("failed", _time(letter.at)),
        ("error", _why(letter)),
        ("model", record.get("model")),
        ("attempts", record.get("attempts")),
        ("worker", record.get("worker_id")),
        ("asked", _asked(letter.message)),
    ]
    for name, value in lines:
        if value is not None:
            say(f"{name:<9} {value}")


def _asked(message: bytes) -> str | None:
    """What the job was to be: its audio's size, and its options."""
    if not message:
        return None
    body = unpack(message)
    audio, claim = body.pop("audio", b""), body.pop("claim", None)
    size = claim["size"] if claim else len(audio)
    asked = (
        f"{key} {json.dumps(value, ensure_ascii=False)}" for key, value in body.items() if value
    )
    return ", ".join((f"{size} bytes", *asked))


def _why(letter: DeadLetter) -> str:
    return f"{letter.reason.get('code')}: {letter.reason.get('message')}"


def _time(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
