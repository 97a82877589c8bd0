"""Somebody at work on a job: ends when the work does, takes too long, or is given up."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from bus_worker.errors import BadAudio, Cancelled, DeadlineExceeded, Stopping
from bus_worker.jobs.attempt import Attempt
from bus_worker.pulls import Held


def attempt() -> Attempt:
    return Attempt(cast(Held, SimpleNamespace(header=lambda _: None)), "j1")


async def forever(ended: list[str]) -> None:
    try:
        await asyncio.Event().wait()
    finally:
        ended.append("ended")


async def nothing() -> str:
    return "done"


async def test_the_works_own_end_is_the_attempts():
    async def wrong() -> None:
        raise BadAudio("noise")

    one = attempt()
    assert await one.run(nothing()) == "done"
    with pytest.raises(BadAudio, match="noise"):
        await one.run(wrong())


async def test_given_up_it_ends_at_once_and_says_why_first():
    one, ended = attempt(), list[str]()
    running = asyncio.create_task(one.run(forever(ended)))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    one.give_up(Stopping())
    one.give_up(Cancelled())
    with pytest.raises(Stopping):
        await running
    assert ended == ["ended"]


async def test_nothing_more_begins_once_it_is_given_up():
    one, ended = attempt(), list[str]()
    one.give_up(Stopping())
    with pytest.raises(Stopping):
        await one.run(forever(ended))
    with pytest.raises(Stopping):
        one.check()
    with pytest.raises(Stopping):
        one.draft()


async def test_what_takes_too_long_is_ended():
    one, ended = attempt(), list[str]()
    with pytest.raises(DeadlineExceeded, match=r"0\.01 s"):
        await one.run(forever(ended), limit=0.01)
    assert ended == ["ended"]


async def test_cancelled_it_leaves_no_work_behind():
    one, ended = attempt(), list[str]()
    running = asyncio.create_task(one.run(forever(ended)))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert ended == ["ended"]


@pytest.mark.parametrize("how", ["given up", "too long"])
async def test_its_drafts_are_given_up_with_it(how: str):
    one = attempt()
    draft: Any = one.draft()
    draft.check()
    running = asyncio.create_task(one.run(forever([]), limit=0.01 if how == "too long" else 600))
    if how == "given up":
        one.give_up(Stopping())
    await asyncio.wait({running})
    assert isinstance(running.exception(), Stopping if how == "given up" else DeadlineExceeded)
    with pytest.raises(Cancelled):
        draft.check()


async def test_a_drafts_own_time_ends_it():
    one = attempt()
    with pytest.raises(DeadlineExceeded):
        one.draft(limit=-1.0).check()
    one.draft(limit=None).check()
    one.check()


async def test_each_attempt_has_a_word_of_its_own():
    assert len({attempt().word for _ in range(100)}) == 100
