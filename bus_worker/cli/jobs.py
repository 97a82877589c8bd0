"""`jobs`: work that is done though we go away: handed in, looked at, followed, cancelled, erased."""

import asyncio
import json
import signal
import time
from argparse import Namespace
from collections.abc import Awaitable, Callable

from bus_worker.cli import dead, submit
from bus_worker.cli.following import FAILED, follow
from bus_worker.cli.terminal import complain, say
from bus_worker.client import Job, JobStatus, TranscribeClient
from bus_worker.connection import open_client
from bus_worker.formats import FORMATS
from bus_worker.settings import load_settings

__all__ = ["run"]

CONNECT_LIMIT = 3.0
"""Seconds: a person waits."""

Action = Callable[[TranscribeClient, Namespace], Awaitable[int]]


def run(args: Namespace) -> int:
    """Do what is asked of a job; Ctrl-C leaves it where it is."""
    if args.action == "submit":
        return submit.run(args, _on_the_bus)
    try:
        return _on_the_bus(ACTIONS[args.action], args)
    except KeyboardInterrupt:
        if args.action == "watch":
            complain(f"the job goes on; `bus-worker jobs watch {args.id}` follows it again")
        return 128 + signal.SIGINT


def _on_the_bus(action: Action, args: Namespace) -> int:
    async def act() -> int:
        async with open_client(load_settings(), limit=CONNECT_LIMIT) as client:
            return await action(client, args)

    return asyncio.run(act())


async def _status(client: TranscribeClient, args: Namespace) -> int:
    status = await client.job(args.id).status()
    if args.json:
        say(json.dumps(status.to_map(), ensure_ascii=False))
        return 0
    for name, text in _lines(status):
        say(f"{name:<9} {text}")
    return 0


def _lines(status: JobStatus) -> list[tuple[str, str]]:
    """What a person wants to know, as far as it is known."""
    lines = [("job", status.job_id), ("status", status.status), ("progress", _progress(status))]
    if status.duration is not None:
        lines.append(("audio", f"{status.duration:.1f} s"))
    lines += [("model", status.model), ("priority", status.priority)]
    worker = f", the last by {status.worker_id}" if status.worker_id else ""
    lines.append(("attempts", f"{status.attempts}{worker}"))
    for name, at in (
        ("handed in", status.created_at), ("begun", status.started_at), ("ended", status.finished_at),
    ):  # fmt: skip
        if at:
            lines.append((name, time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))))
    if status.error:
        lines.append(("error", f"{status.error.get('code')}: {status.error.get('message')}"))
    return lines


def _progress(status: JobStatus) -> str:
    of = f" of {status.windows}" if status.windows is not None else ""
    windows = f", {status.windows_done}{of} windows" if status.windows_done or of else ""
    return f"{status.progress:.0%}{windows}"


async def _watch(client: TranscribeClient, args: Namespace) -> int:
    say(FORMATS[args.format](await follow(client.job(args.id))), end="")
    return 0


async def _result(client: TranscribeClient, args: Namespace) -> int:
    say(FORMATS[args.format](await client.job(args.id).transcript()), end="")
    return 0


async def _cancel(client: TranscribeClient, args: Namespace) -> int:
    job = client.job(args.id)
    status = await job.cancel()
    if status.status == "cancelled":
        return 0
    complain(f"the job is {status.status}: there is nothing to cancel")
    return FAILED


async def _erase(client: TranscribeClient, args: Namespace) -> int:
    job: Job = client.job(args.id)
    if not (await job.status()).final:
        complain("the job has not ended: cancel it first")
        return FAILED
    await job.erase()
    return 0


ACTIONS: dict[str, Action] = {
    "status": _status,
    "watch": _watch,
    "result": _result,
    "cancel": _cancel,
    "erase": _erase,
    "dead": dead.act,
}
