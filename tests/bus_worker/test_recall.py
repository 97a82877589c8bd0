"""What is remembered of requests: the same question hits, anything that changes the answer misses."""

import io
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import soundfile
from pydantic import BaseModel

from bus_worker import recall as recall_room
from bus_worker.cache import MemoryCache
from bus_worker.errors import AudioTooShort, DeadlineExceeded
from bus_worker.messages import ModelInfo, Transcript, pack
from bus_worker.pipeline import Pipeline
from bus_worker.plugin import Draft, NoOptions, Stage, stage
from bus_worker.recall import Recall
from bus_worker.requests import read_request
from bus_worker.testing import segment
from bus_worker.transcriber import Transcriber
from plugins.decode import decode
from plugins.limits import limits
from plugins.normalize import normalize
from plugins.silence import silence
from plugins.tidy import tidy

TONE = (np.sin(np.arange(16_000) / 20) * 16_000).astype(np.int16)
"""Whole numbers: floats would be rounded differently on their way into each format."""
BASE = ModelInfo("base", "1")


class Ear(BaseModel):
    loud: bool = False
    after: float = 0.0


@stage(Ear, needs=("samples",), gives=("segments",), version="1", per_request=("loud",))
def ear(draft: Draft, options: Ear) -> None:
    """Hear two words, after the deadline if told so."""
    time.sleep(options.after)
    draft.check()
    heard["times"] += 1
    draft.language = "en"
    draft.segments = [segment(" HELLO" if options.loud else " hello"), segment(" there", 1, 2, 1)]
    for one in draft.segments:
        draft.emit(one)


@stage(needs=("samples",), gives=("samples", "odd"))
async def odd(draft: Draft, options: NoOptions) -> None:
    """Leave something that has no name."""
    draft.extras["odd"] = object()


heard = {"times": 0}
ROAD = (decode, limits, normalize, silence, ear, tidy)


@pytest.fixture(autouse=True)
def nothing_heard_yet() -> None:
    heard["times"] = 0


def clip(kind: str = "wav", samples: np.ndarray = TONE) -> bytes:
    written = io.BytesIO()
    soundfile.write(written, samples, 16_000, format=kind, subtype="PCM_16")
    return written.getvalue()


class House:
    """Workers, one after the other, that share a cache."""

    def __init__(self) -> None:
        self.cache = MemoryCache()
        self.recall = Recall(self.cache)
        self.told: list[str] = []

    async def ask(
        self,
        audio: bytes | None = None,
        *,
        road: tuple[Stage, ...] = ROAD,
        set_by_operator: Mapping[str, Mapping[str, Any]] | None = None,
        model: ModelInfo = BASE,
        within: float | None = None,
        **asked: Any,
    ) -> Transcript:
        given = set_by_operator or {}
        pipeline = Pipeline.order(
            [s.name for s in road],
            {s.name: s for s in road},
            lambda s: s.options(**given.get(s.name, {})),
        )
        request = read_request(pack({"audio": clip() if audio is None else audio, **asked}))
        async with pipeline.open() as opened:
            worker = Transcriber(opened, model, "w", 10_000_000, self.recall)
            deadline = None if within is None else time.monotonic() + within
            draft = worker.draft(
                request, deadline=deadline, on_segment=lambda s: self.told.append(s.text)
            )
            return await worker.run(draft, request, request_id="mine", received=time.monotonic())


@pytest.fixture
def house() -> House:
    return House()


# --- hits ------------------------------------------------------------------------------------


async def test_the_same_request_is_answered_without_hearing_or_decoding_it_again(house: House):
    first = await house.ask()
    again = await house.ask()
    assert heard["times"] == 1
    assert list(first.timings.stages) == [s.name for s in ROAD]
    assert again.timings.stages == {}
    assert (first.cache_hit, first.cached_at, first.cache_hit_at) == (False, None, None)
    assert again.cache_hit
    assert again.cached_at is not None
    assert again.cached_at <= again.cache_hit_at <= time.time()
    own = {"timings", "real_time_factor", "cache_hit", "cached_at", "cache_hit_at"}
    said, said_again = first.to_map(), again.to_map()
    assert {k: v for k, v in said.items() if k not in own} == {
        k: v for k, v in said_again.items() if k not in own
    }
    assert house.recall.figures().items() >= {"hits": 1, "misses": 1, "stored": 2}.items()


async def test_the_same_samples_in_another_file_hit_and_the_next_time_need_no_decoding(
    house: House,
):
    assert not (await house.ask(clip("wav"))).cache_hit
    flac = await house.ask(clip("flac"))
    assert flac.cache_hit
    assert list(flac.timings.stages) == ["decode", "limits", "normalize", "silence"]
    assert (await house.ask(clip("flac"))).timings.stages == {}
    assert heard["times"] == 1


async def test_what_was_silent_is_known_without_looking_again(house: House):
    silent = clip(samples=np.zeros(16_000, np.int16))
    await house.ask(silent)
    again = await house.ask(silent)
    assert again.cache_hit
    assert (again.text, again.warnings, again.language) == ("", ["silent_audio"], None)


async def test_a_caller_who_streams_gets_the_segments_of_a_known_answer_too(house: House):
    await house.ask(stream=True)
    assert house.told == [" hello", " there"]
    again = await house.ask(stream=True)
    assert again.cache_hit
    assert house.told[2:] == ["hello", "there"]


async def test_a_request_may_ask_to_be_heard_anew_and_what_is_heard_is_kept(house: House):
    await house.ask()
    assert not (await house.ask(cache=False)).cache_hit
    assert heard["times"] == 2
    assert (await house.ask()).cache_hit
    assert house.cache.figures()["stored"] == 4
    empty = House()
    await empty.ask(cache=False)
    assert (await empty.ask()).cache_hit


# --- misses ----------------------------------------------------------------------------------

OPTIONS: dict[str, Any] = {
    "language": "de", "task": "translate", "prompt": "Before.", "hotwords": ["Kubernetes"],
    "temperature": 0.5, "beam_size": 1, "word_timestamps": True, "vad": False,
}  # fmt: skip


@pytest.mark.parametrize("name", OPTIONS)
async def test_another_option_is_another_answer(house: House, name: str):
    await house.ask()
    assert not (await house.ask(options={name: OPTIONS[name]})).cache_hit
    assert (await house.ask(options={name: OPTIONS[name]})).cache_hit


def test_no_option_of_requests_is_forgotten():
    assert set(OPTIONS) == set(type(read_request(pack({"audio": b""})).options).model_fields)


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [
        ("decode", "max_duration", 20.0), ("decode", "formats", ("wav", "flac")), ("decode", "timeout", 9.0),
        ("limits", "min_duration", 0.2), ("limits", "max_duration", 20.0), ("normalize", "peak", 0.9),
        ("silence", "threshold", 0.002), ("ear", "loud", True), ("ear", "after", 0.001),
    ],
)  # fmt: skip
async def test_another_option_of_a_stage_is_another_answer(
    house: House, name: str, option: str, value: Any
):
    await house.ask()
    changed = await house.ask(set_by_operator={name: {option: value}})
    assert not changed.cache_hit
    assert heard["times"] == 2


async def test_a_stage_s_option_set_by_a_request_counts_as_it_takes_effect(house: House):
    await house.ask(set_by_operator={"ear": {"loud": True}})
    assert (await house.ask(stages={"ear": {"loud": True}})).cache_hit
    assert not (await house.ask(stages={"ear": {"loud": False}})).cache_hit


@pytest.mark.parametrize("changed", ROAD, ids=lambda s: s.name)
async def test_another_version_of_a_stage_is_another_answer(house: House, changed: Stage):
    await house.ask()
    road = tuple(replace(s, version=f"{s.version}+") if s is changed else s for s in ROAD)
    assert not (await house.ask(road=road)).cache_hit


async def test_another_pipeline_model_revision_or_way_of_asking_is_another_answer(house: House):
    await house.ask()
    assert not (await house.ask(road=ROAD[:-1])).cache_hit
    assert not (await house.ask(road=(*ROAD[:2], silence, normalize, *ROAD[4:]))).cache_hit
    assert not (await house.ask(model=ModelInfo("base", "2"))).cache_hit
    assert not (await house.ask(model=ModelInfo("small", "1"))).cache_hit
    assert not (await house.ask(stream=True)).cache_hit
    assert not (await house.ask(clip(samples=TONE[::-1]))).cache_hit
    assert heard["times"] == 7


async def test_nothing_is_kept_of_a_request_that_failed(house: House):
    with pytest.raises(AudioTooShort):
        await house.ask(clip(samples=TONE[:100]))
    with pytest.raises(DeadlineExceeded):
        await house.ask(within=0.2, set_by_operator={"ear": {"after": 0.3}})
    assert house.cache.figures()["entries"] == 0


async def test_what_later_stages_may_see_besides_samples_must_have_a_name(house: House):
    road = (decode, odd, ear, tidy)
    await house.ask(road=road)
    assert (await house.ask(road=road)).cache_hit  # the same bytes leave the same behind
    assert not (await house.ask(clip("flac"), road=road)).cache_hit


# --- values ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value", [b"", b"\xc1", b"{}", pack({"text": "old"}), pack({"text": 5}), bytes(1000)]
)
async def test_a_value_that_cannot_be_read_is_a_miss_and_is_written_anew(
    house: House, value: bytes
):
    await house.ask()
    for name in list(house.cache._kept):
        await house.cache.put({name: value}, 60, 1)
    assert not (await house.ask()).cache_hit
    assert (await house.ask()).cache_hit


async def test_an_answer_that_is_too_large_is_not_kept(
    house: House, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(recall_room, "LARGEST", 100)
    await house.ask()
    assert house.cache.figures()["stored"] == 0


async def test_a_copy_lives_no_longer_than_what_it_was_copied_from(
    house: House, monkeypatch: pytest.MonkeyPatch
):
    house.recall.ttl = 100
    await house.ask(clip("wav"))
    now = time.time()
    monkeypatch.setattr(recall_room.time, "time", lambda: now + 60)
    lives: list[float] = []
    put = house.cache.put

    async def noted(values: Mapping[str, bytes], ttl: float, limit: float, **more: Any) -> None:
        lives.append(ttl)
        await put(values, ttl, limit, **more)

    monkeypatch.setattr(house.cache, "put", noted)
    assert (await house.ask(clip("flac"))).cache_hit
    assert lives == [pytest.approx(40, abs=2)]
    monkeypatch.setattr(recall_room.time, "time", lambda: now + 101)
    assert not (await house.ask(clip("flac"))).cache_hit


async def test_one_request_waits_for_a_slow_cache_only_so_long(
    house: House, monkeypatch: pytest.MonkeyPatch
):
    given: list[float] = []

    async def slow(name: str, limit: float) -> None:
        given.append(limit)
        time.sleep(0.1)  # noqa: ASYNC251 - the clock is what counts

    monkeypatch.setattr(house.cache, "get", slow)
    await house.ask()
    assert given == [recall_room.BUDGET, pytest.approx(recall_room.BUDGET - 0.1, abs=0.04)]
