"""The page a plugin author sees."""

import asyncio
import contextlib
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from pydantic import BaseModel

from bus_worker import errors
from bus_worker.plugin import Draft, NoOptions, stage


class Options(BaseModel):
    gain: float = 1.0


def test_a_stage_is_named_and_described_by_its_function():
    @stage(Options, needs=("samples",), version="3")
    async def gain(draft: Draft, options: Options) -> None:
        """Scale the samples.

        More.
        """

    assert (gain.name, gain.summary, gain.version) == ("gain", "Scale the samples.", "3")
    assert gain.source.endswith("test_plugin.py")
    assert not gain.blocking


def test_an_option_that_is_not_there_cannot_be_per_request():
    with pytest.raises(TypeError, match="per_request names no option of Options: volume"):
        stage(Options, per_request=("volume",))


def test_wrong_arguments_are_said_at_once():
    with pytest.raises(TypeError, match=r"must take \(draft, options\)"):

        @stage()
        async def lonely(draft: Draft) -> None: ...

    with pytest.raises(TypeError, match=r"must take \(draft, options, opened\)"):

        @stage(open=contextlib.nullcontext)
        async def living(draft: Draft, options: NoOptions) -> None: ...


def test_notes_spans_and_warnings_gather():
    draft = Draft()
    draft.note("windows", 3)
    for _ in range(2):
        with draft.span("encode"):
            time.sleep(0.001)
    draft.warn("silent_audio")
    draft.warn("silent_audio")
    assert draft.notes == {"windows": 3}
    assert draft.spans["encode"] > 0.002
    assert draft.warnings == ["silent_audio"]


def test_check_tells_the_deadline_from_a_cancel():
    draft = Draft(deadline=time.monotonic() + 60)
    draft.check()
    draft.give_up()
    with pytest.raises(errors.Cancelled):
        draft.check()
    with pytest.raises(errors.DeadlineExceeded):
        Draft(deadline=time.monotonic() - 1).check()


async def test_a_draft_knows_its_threads_after_the_caller_has_left():
    draft = Draft()
    go = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        work = asyncio.create_task(draft.run_in(pool, go.wait, 5))
        await asyncio.sleep(0.01)
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
        settled = asyncio.create_task(draft.settled())
        await asyncio.sleep(0.01)
        assert not settled.done()
        go.set()
        await settled


async def test_what_a_thread_raises_comes_out():
    draft = Draft()
    with ThreadPoolExecutor(1) as pool, pytest.raises(ZeroDivisionError):
        await draft.run_in(pool, lambda: 1 // 0)
