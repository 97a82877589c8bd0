"""A window of a long recording: strange ones do no harm, large ones are kept, troubled ones are tried again."""

from typing import Any

import pytest

from bus_worker.dead_letters import DeadLetters
from bus_worker.embedded import nats_server
from bus_worker.errors import Failed
from bus_worker.job_record import JobRecord
from bus_worker.jobs import Limits, judging
from bus_worker.messages import pack
from bus_worker.plugin import Draft, NoOptions, stage
from bus_worker.results import Results
from bus_worker.streams import make_streams
from bus_worker.testing import pretend
from plugins.decode import decode
from tests.helpers.course import idle, kept_of
from tests.helpers.house import NAMES, Workers
from tests.helpers.tones import noise, wav_bytes

RECORDING = wav_bytes(noise(2.5))
WINDOW = {"job_id": "j1", "number": 0, "start": 0, "pcm": bytes(3200), "scale": 1.0}


@pytest.mark.parametrize(
    "wrong",
    [
        {"number": 10**9}, {"number": 3}, {"number": -1}, {"scale": 0.0}, {"scale": float("nan")},
        {"scale": 1e300}, {"job_id": "a.b"}, {"pcm": "text"}, {"more": 1},
    ],
    ids=str,
)  # fmt: skip
async def test_a_strange_window_is_dropped(workers: Workers, wrong: dict[str, Any]):
    await workers.start(jobs=Limits(), seconds=0.0)
    nc = (await workers.bus()).client
    results = Results(nc, NAMES)
    await results.create(JobRecord(job_id="j1", status="running", model="pretend", windows=3))
    await nc.jetstream().publish(
        NAMES.windows("pretend", "low"), pack(WINDOW | wrong), headers={"Stt-Job-Id": "j1"}
    )
    await idle(nc)
    assert (await results.record("j1")).done == b""
    assert await kept_of(nc, "j1") == {"status"}


async def test_words_too_many_for_a_message_are_kept_and_joined():
    """Neither what was heard in a window nor its event fits a message."""
    async with (
        nats_server(default_model="pretend", max_payload=300_000) as server,
        Workers(server) as workers,
    ):
        await workers.start(
            decode, pretend, jobs=Limits(longest_clip=1.0), seconds=0.0, segments=4000,
            options={"decode": {"max_duration": 1.0}},
        )  # fmt: skip
        client, nc = await workers.client(), (await workers.bus()).client
        job = await client.submit(RECORDING)
        result, status = await job.result(30), await job.status()
        assert status.windows is not None
        assert len(result.segments) == 4000 * status.windows
        assert [one.id async for one in job.segments()] == list(range(len(result.segments)))
        await idle(nc)
        assert await kept_of(nc, job.id, but=("text-",)) == {"status"}


async def test_of_two_who_heard_a_large_window_the_first_ones_words_stand():
    async with nats_server(max_payload=300_000) as server, Workers(server) as workers:
        nc = (await workers.bus()).client
        await make_streams(nc, NAMES, "pretend")
        results = Results(nc, NAMES)
        first, second = ({"text": letter * 1_000_000} for letter in "ab")
        assert await results.keep_window("j1", 12, first)
        kept = await kept_of(nc, "j1")
        assert not await results.keep_window("j1", 12, second)
        await nc.flush()
        assert await kept_of(nc, "j1") == kept
        assert await results.window("j1", 12) == first
        assert await results.keep_window("j1", 1, {"text": "small"})
        await results.erase_window("j1", 12)
        await nc.flush()
        assert await results.window("j1", 12) is None
        assert await kept_of(nc, "j1") == {"w1"}


async def test_what_a_window_cost_is_forgotten_with_its_job(
    workers: Workers, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(judging, "LONGEST", 0.02)
    troubled: set[int] = set()

    @stage(needs=("samples",), gives=("segments", "text"))
    async def ear(draft: Draft, _: NoOptions) -> None:
        """Fail at each size once."""
        assert draft.samples is not None
        if len(draft.samples) not in troubled:
            troubled.add(len(draft.samples))
            raise Failed
        draft.text = "heard"

    await workers.start(
        decode, ear, jobs=Limits(longest_clip=1.0), options={"decode": {"max_duration": 1.0}}
    )
    client, nc = await workers.client(), (await workers.bus()).client
    job = await client.submit(RECORDING, language="en")
    assert set((await job.result(30)).text.split()) == {"heard"}
    assert troubled
    await idle(nc)
    assert await kept_of(nc, job.id, but=("text-",)) == {"status"}


async def test_a_window_that_always_fails_ends_its_job(
    workers: Workers, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(judging, "LONGEST", 0.02)
    asked: list[int] = []

    @stage(needs=("samples",), gives=("segments", "text"))
    async def ear(draft: Draft, _: NoOptions) -> None:
        """Fail at the first size, always."""
        assert draft.samples is not None
        asked.append(len(draft.samples))
        if asked[0] == asked[-1]:
            raise RuntimeError("a mistake")

    await workers.start(
        decode, ear, jobs=Limits(longest_clip=1.0), options={"decode": {"max_duration": 1.0}}
    )
    client, nc = await workers.client(), (await workers.bus()).client
    job = await client.submit(RECORDING, language="en")
    with pytest.raises(Failed):
        await job.result(30)
    await idle(nc)
    assert asked.count(asked[0]) == 5
    assert await kept_of(nc, job.id) == {"status"}
    assert (await DeadLetters(nc, NAMES).get(job.id)).message == pack(
        {"options": {"language": "en"}, "audio": RECORDING}
    )
