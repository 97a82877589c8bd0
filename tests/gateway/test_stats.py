"""What the workers count, added up so that it is true."""

import json

import pytest

from bus_worker.durations import Durations
from bus_worker.embedded import NatsServer
from bus_worker.errors import BadRequest
from bus_worker.plugin import Draft, NoOptions, stage
from gateway.stats import summed
from tests.helpers.gateway import gateway
from tests.helpers.house import Workers


@stage(NoOptions, gives=("text",))
async def picky(draft: Draft, options: NoOptions) -> None:
    """Refuse one clip."""
    if draft.audio == b"bad":
        raise BadRequest("no")
    draft.text = "yes"


def figures(seconds: list[float], **more: object) -> dict[str, object]:
    durations = Durations()
    for one in seconds:
        durations.add(one)
    return {"durations": durations.to_map(), "answers": {"ok": len(seconds)}, "slots": 1, **more}


async def test_totals_are_the_sum_of_what_stands_beside_them(
    bus_server: NatsServer, workers: Workers
):
    for slots in (1, 2):
        await workers.start(picky, slots=slots)
    async with gateway(bus_server.url) as door, door.caller() as http:
        for _ in range(4):
            await http.post("/transcribe", files={"file": bytes(9)})
        await http.post("/transcribe", files={"file": b"bad"})
        said = (await http.get("/stats")).json()
    totals, each = said["totals"], said["workers"]
    assert (totals["workers"], totals["ready"], totals["slots"]) == (2, 2, 3)
    assert (totals["requests"], totals["errors"]) == (5, 1)
    assert totals["answers"] == {"ok": 4, "bad_request": 1}
    assert totals["cache_hit_rate"] is None
    assert sorted(each) == ["w1", "w2"]
    assert sum(sum(one["answers"].values()) for one in each.values()) == 5
    assert 0 < totals["latency"]["p50"] <= totals["latency"]["p95"] < 5


def test_latencies_are_of_all_requests_not_of_all_workers():
    said = summed({"fast": figures([0.1] * 96), "slow": figures([9.0] * 4)})
    assert said.totals.latency.p50 == pytest.approx(0.1, rel=0.05)
    assert said.totals.latency.p95 == pytest.approx(0.1, rel=0.05)
    assert said.workers["slow"]["latency"]["p50"] == pytest.approx(9.0, rel=0.05)
    assert "durations" not in said.workers["slow"]


def test_who_shared_anothers_work_counts_as_hit():
    cache = {"hits": 2, "misses": 1, "shared": 1, "kind": "redis"}
    said = summed({"a": figures([], cache=cache), "b": figures([], cache={**cache, "misses": 5})})
    assert (said.totals.cache_hits, said.totals.cache_misses) == (6, 6)
    assert said.totals.cache_hit_rate == 0.5


@pytest.mark.parametrize(
    "strange",
    [
        {"slots": "many"}, {"durations": {"9999999": 1}}, {"durations": {"x": 1}}, {"answers": 5},
        {"durations": {"1": -4}}, {"cache": "none"}, {"ready": None},
    ],
    ids=json.dumps,
)  # fmt: skip
def test_what_is_no_worker_is_left_out(strange: dict[str, object]):
    said = summed({"a": figures([1.0]), "b": {**figures([1.0]), **strange}})
    assert list(said.workers) == ["a"]
    assert said.totals.requests == 1


def test_an_older_worker_says_less():
    said = summed({"a": {"model": "base", "slots": 2}})
    assert (said.totals.slots, said.totals.requests, said.totals.latency.p50) == (2, 0, None)
