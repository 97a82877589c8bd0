"""What a scrape says: everything that happened once, under names that stay few."""

import asyncio
import re

import pytest
from prometheus_client import generate_latest

from bus_worker.cache import MemoryCache
from bus_worker.errors import BusWorkerError, ClaimExpired, Failed
from bus_worker.metrics import MAX_PARTS, Metrics, Work
from bus_worker.plugin import Draft, NoOptions, stage
from bus_worker.request_line import RequestLine
from tests.helpers.house import Workers
from tests.helpers.scrape import scraped


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


def test_a_request_is_observed_once_in_every_figure(metrics: Metrics):
    metrics.observe(
        Work(
            "request", "ok", 0.5, 0.02, audio=4.0, stages={"decode": 0.1, "whisper": 0.3},
            spans={"encode": 0.2}, notes={"reruns": 2, "calls": "1,4"},
        )
    )  # fmt: skip
    said = scraped(metrics)
    assert said["request_duration_seconds_sum,lane=request"] == 0.5
    assert said["queue_wait_seconds_count,lane=request"] == 1
    assert said["stage_duration_seconds_sum,stage=whisper"] == 0.3
    assert said["engine_duration_seconds_sum,part=encode"] == 0.2
    assert said["real_time_factor_sum"] == pytest.approx(0.1)
    assert (said["batch_size_count"], said["batch_size_sum"]) == (2, 5)
    assert said["short_context_reruns_total"] == 2
    assert said["audio_seconds_total,lane=request"] == 4


def test_work_that_was_shared_is_counted_where_it_was_done(metrics: Metrics):
    metrics.observe(
        Work("request", "ok", 0.5, 0.0, 4.0, {"a": 1.0}, {"b": 1.0}, {"shared": True, "calls": "3"})
    )
    said = scraped(metrics)
    assert said["request_duration_seconds_count,lane=request"] == 1
    assert said["batch_size_count"] == said["real_time_factor_count"] == 0
    assert not [name for name in said if name.startswith(("stage", "engine"))]


def test_an_answer_from_the_cache_says_nothing_of_the_models_speed(metrics: Metrics):
    metrics.observe(Work("request", "ok", 0.1, 0.0, 4.0, {"decode": 0.01}, {}, {"cache_hit": True}))
    said = scraped(metrics)
    assert said["real_time_factor_count"] == 0
    assert said["stage_duration_seconds_count,stage=decode"] == 1


@pytest.mark.parametrize(
    "odd", ["x", None, True, float("nan"), float("inf"), -1, [], "9" * 9999, 10**400]
)
def test_what_a_plugin_notes_amiss_is_not_counted(metrics: Metrics, odd: object):
    metrics.observe(
        Work("window", "ok", 1.0, spans={"vad": odd}, notes={"reruns": odd, "calls": odd})
    )
    said = scraped(metrics)
    assert said["short_context_reruns_total"] == 0
    assert said["batch_size_count"] == 0
    assert not [name for name in said if name.startswith("engine")]


def test_a_plugin_cannot_make_labels_without_end(metrics: Metrics):
    for number in range(200):
        metrics.observe(Work("request", "ok", 1.0, spans={f"part {number}\n" + "x" * 99: 1.0}))
    parts = {name for name in scraped(metrics) if name.startswith("engine_duration_seconds_count")}
    assert len(parts) == MAX_PARTS + 1
    assert "engine_duration_seconds_count,part=other" in parts
    assert max(map(len, parts)) < 90


def test_how_a_ticket_ends_is_counted(metrics: Metrics):
    for error in (None, ClaimExpired(), Failed(), asyncio.CancelledError()):
        try:
            with metrics.fetching():
                if error is not None:
                    raise error
        except (BusWorkerError, asyncio.CancelledError):
            pass
    said = scraped(metrics)
    assert [said[f"claim_checks_total,outcome={how}"] for how in ("fetched", "expired", "failed")] == [1, 1, 1]  # fmt: skip


class OwnError(BusWorkerError):
    """A plugin's own."""

    code = "my_very_own"


@stage(NoOptions, gives=("text",))
async def picky(draft: Draft, options: NoOptions) -> None:
    """Take what has three bytes."""
    if len(draft.audio) != 3:
        raise OwnError
    draft.text, draft.duration = "three", 2.0


async def test_what_a_worker_counts_anyway_is_read_when_somebody_asks(workers: Workers):
    line = RequestLine(Metrics())
    service = await workers.start(picky, cache=MemoryCache(), line=line, slots=2)
    more = {"ready": True, "bus_connected": True, "jobs_in_hand": 0}
    line.metrics.reads(lambda: service.stats()["data"] | more)
    client = await workers.client()
    for _ in range(3):
        await client.transcribe(b"abc")
    with pytest.raises(BusWorkerError):
        await client.transcribe(b"ab")
    said = scraped(line.metrics)
    assert said["requests_total,code=ok,lane=request,outcome=ok"] == 3
    assert said["requests_total,code=other,lane=request,outcome=error"] == 1
    for code in ("failed", "deadline_exceeded", "unavailable"):  # what alerts look at begins at 0
        assert said[f"requests_total,code={code},lane=request,outcome=error"] == 0
    assert said["request_duration_seconds_count,lane=request"] == 4
    assert [said[f"cache_requests_total,result={r}"] for r in ("hit", "miss", "shared")] == [2, 1, 0]  # fmt: skip
    assert said["audio_seconds_total,lane=request"] == 6
    assert [said[f"slots,state={s}"] for s in ("free", "taken", "aside")] == [2, 0, 0]
    assert (said["credits"], said["ready"], said["cache_breaker_open"]) == (2, 1, 0)
    assert said["model_info,compute_type=,device=,model=pretend,revision="] == 1
    text = generate_latest(line.metrics.registry).decode()
    assert "my_very_own" not in text
    names = set(re.findall(r"^# TYPE (\w+)", text, re.MULTILINE))
    assert all(name.startswith(("bus_worker_", "process_")) for name in names)


def test_two_workers_in_one_process_count_apart():
    one, other = Metrics(), Metrics()
    one.job_ended("done")
    assert scraped(one)["jobs_total,status=done"] == 1
    assert scraped(other)["jobs_total,status=done"] == 0


def test_before_there_is_a_model_a_scrape_says_that_it_is_not_ready(metrics: Metrics):
    metrics.reads(lambda: {"ready": False, "bus_connected": False})
    said = scraped(metrics)
    assert (said["ready"], said["bus_connected"]) == (0, 0)
    assert not [name for name in said if name.startswith(("model_info", "slots"))]
