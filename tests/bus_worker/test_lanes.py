"""Jobs in the slots that people leave free."""

import asyncio

import pytest

from bus_worker import streams
from bus_worker.jobs import Limits, worker
from tests.helpers.house import Workers, until


async def test_a_job_that_waits_for_its_slot_stays_in_hand(
    workers: Workers, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(streams, "ACK_WAIT", 0.6)
    monkeypatch.setattr(worker, "ACK_WAIT", 0.6)
    service = await workers.start(jobs=Limits(), slots=2, seconds=2.0)
    client = await workers.client()
    people = [asyncio.create_task(client.transcribe(bytes([n]))) for n in range(2)]
    await until(lambda: service.credits.busy == 2)
    job = await client.submit(b"job")
    await asyncio.sleep(0.3)
    js = (await workers.bus()).client.jetstream()
    another = await js.pull_subscribe_bind("pretend-low", "STT_JOBS")
    with pytest.raises(TimeoutError):
        await another.fetch(1, timeout=1.2)
    await asyncio.gather(*people)
    await job.result(10)
    queue = await js.consumer_info("STT_JOBS", "pretend-low")
    assert queue.delivered.consumer_seq == 1
