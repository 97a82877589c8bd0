"""A window that no opener of ours cut does no harm."""

from typing import Any

import pytest

from bus_worker.job_record import JobRecord
from bus_worker.jobs import Limits
from bus_worker.messages import pack
from bus_worker.results import Results
from tests.helpers.course import idle, kept_of
from tests.helpers.house import NAMES, Workers

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
