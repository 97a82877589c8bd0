"""The model's life: what stops it from starting, its threads, and whose error is whose."""

import asyncio
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bus_worker.errors import BadSetting, Cancelled, DeadlineExceeded, Failed, ModelUnavailable
from bus_worker.model_store import find_model
from plugins.whisper import Options
from plugins.whisper.engine import available_cores, open_engine
from tests.helpers.clips import clip
from tests.helpers.hearing import Ears, opened

SECOND = np.zeros(16_000, np.float32)


class Steps:
    """CTranslate2's model, and what it is asked to do."""

    def __init__(self, model: Any) -> None:
        self.taken: list[str] = []
        self.then: Callable[[], None] = lambda: None
        self._model = model

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def encode(self, *args: Any, **how: Any) -> Any:
        self.taken.append("encode")
        return self._model.encode(*args, **how)

    def generate(self, *args: Any, **how: Any) -> Any:
        self.taken.append("generate")
        result = self._model.generate(*args, **how)
        self.then()
        return result

    def align(self, *args: Any, **how: Any) -> Any:
        self.taken.append("align")
        return self._model.align(*args, **how)


@pytest.fixture(scope="module")
def ears() -> Iterator[Ears]:
    with opened(model="tiny.en", replicas=2, vad=False) as ears:
        yield ears


# Starting


def test_importing_the_stage_does_not_import_the_model_library():
    heavy = "('faster_whisper', 'ctranslate2', 'onnxruntime', 'av', 'huggingface_hub')"
    code = f"import plugins.whisper, sys; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("knobs", "error", "sentence"),
    [
        ({"model": "bse"}, ModelUnavailable, "there is no model 'bse'; did you mean 'base'"),
        ({"compute_type": "int3"}, BadSetting, "WHISPER_COMPUTE_TYPE='int3': .* int8"),
        ({"default_language": "xx"}, BadSetting, "WHISPER__DEFAULT_LANGUAGE='xx': .*, en, "),
        ({"model_name": "a b"}, BadSetting, "MODEL_NAME='a b'"),
    ],
)
async def test_what_cannot_start_is_one_sentence(knobs, error, sentence):
    with pytest.raises(error, match=sentence) as failed:
        async with open_engine(Options(**knobs)):
            pass
    assert "\n" not in failed.value.message


async def test_a_gpu_that_is_not_there_says_so(monkeypatch):
    monkeypatch.setattr("ctranslate2.get_cuda_device_count", lambda: 0)
    with pytest.raises(BadSetting, match=r"WHISPER_DEVICE='cuda': there is no CUDA device"):
        async with open_engine(Options(model="tiny.en", device="cuda")):
            pass


async def test_a_folder_whose_weights_are_no_model_says_so(tmp_path):
    folder = tmp_path / "broken"
    shutil.copytree(find_model("tiny.en", cache_dir=tmp_path).path, folder)
    (folder / "model.bin").write_bytes(b"not weights" * 1000)
    with pytest.raises(ModelUnavailable, match="broken cannot be loaded as a Whisper model: "):
        async with open_engine(Options(model=str(folder))):
            pass


async def test_a_start_that_is_given_up_ends_at_once():
    async def start() -> None:
        async with open_engine(Options(model="tiny.en")):
            pytest.fail("nobody waited for it")

    task = asyncio.create_task(start())
    await asyncio.sleep(0.01)
    task.cancel()
    done, _ = await asyncio.wait({task}, timeout=5)
    assert done
    assert task.cancelled()


# Threads


async def test_as_many_clips_as_replicas_are_heard_side_by_side(ears, monkeypatch):
    both_in = threading.Barrier(2)
    real = type(ears.engine.decoder).listen

    def listen(decoder, samples, **how):
        both_in.wait(timeout=20)  # breaks unless two threads are here together
        return real(decoder, samples, **how)

    monkeypatch.setattr(type(ears.engine.decoder), "listen", listen)
    await asyncio.gather(ears.hear(SECOND), ears.hear(SECOND))
    assert ears.engine.slots == 2


async def test_the_event_loop_runs_on_while_the_model_works(ears, monkeypatch):
    loop, working, looked = asyncio.get_running_loop(), asyncio.Event(), threading.Event()

    def listen(_decoder, _samples, **_how):
        loop.call_soon_threadsafe(working.set)
        assert looked.wait(timeout=20)
        raise RuntimeError("enough")

    monkeypatch.setattr(type(ears.engine.decoder), "listen", listen)
    task = asyncio.create_task(ears.hear(SECOND))
    await working.wait()
    looked.set()
    with pytest.raises(Failed):
        await task


async def test_past_its_deadline_a_draft_is_not_begun(ears):
    draft = ears.draft(SECOND)
    draft.deadline = 0.0
    with pytest.raises(DeadlineExceeded):
        await ears.run(draft)


NEVER_GOOD = {"log_prob_threshold": -0.0001, "no_speech_threshold": 1.0}
"""Every temperature is tried."""
ALL_SKIPPED = {"log_prob_threshold": -0.0001, "no_speech_threshold": 0.0}
"""Every window is taken for silence: there is no segment to look up at."""


@pytest.fixture
def steps(ears: Ears, monkeypatch: pytest.MonkeyPatch) -> Steps:
    """What the model is asked to do; `then` is called when it has generated."""
    seen = Steps(ears.engine.decoder.model)
    monkeypatch.setattr(ears.engine.decoder, "model", seen)
    return seen


@pytest.mark.parametrize(
    ("knobs", "asked"),
    [
        (NEVER_GOOD, {"hotwords": [f"hotword number {n}" for n in range(200)]}),
        (NEVER_GOOD, {"prompt": "\ud7ff\0\x1b<|endoftext|><|notimestamps|>" * 50}),
        (ALL_SKIPPED, {}),
        ({}, {"word_timestamps": True}),
    ],
)
async def test_a_deadline_that_passes_while_decoding_frees_the_thread(
    ears, speech, steps, knobs, asked
):
    draft = ears.draft(np.tile(clip(speech, "jfk-flac"), 4), language="en", **asked)

    def pass_deadline() -> None:
        draft.deadline = 0.0

    steps.then = pass_deadline
    with pytest.raises(DeadlineExceeded):
        await ears.run(draft, **knobs)
    await asyncio.wait_for(draft.settled(), 20)
    assert steps.taken == ["encode", "generate"], "no other try, window or word"


async def test_a_caller_who_leaves_while_decoding_frees_the_thread(ears, speech, steps):
    draft = ears.draft(clip(speech, "jfk-flac"), language="en")
    steps.then = draft.give_up
    with pytest.raises(Cancelled):
        await ears.run(draft, **NEVER_GOOD)
    await asyncio.wait_for(draft.settled(), 20)
    assert steps.taken == ["encode", "generate"]


async def test_while_somebody_waits_every_temperature_is_tried(ears, speech, steps):
    draft = ears.draft(clip(speech, "jfk-flac"), language="en")
    draft.deadline = time.monotonic() + 600
    await ears.run(draft, temperatures=(0.0, 0.2, 0.4), **NEVER_GOOD)
    assert steps.taken == ["encode", "generate", "encode", *["generate"] * 3], "context first"


async def test_one_caller_s_deadline_is_not_another_s(ears, speech, steps):
    late, other = (ears.draft(clip(speech, "jfk-flac"), language="en") for _ in range(2))

    def pass_deadline() -> None:
        late.deadline = 0.0

    steps.then = pass_deadline
    with pytest.raises(DeadlineExceeded):
        await ears.run(late, **NEVER_GOOD)
    await ears.run(other)
    assert other.segments


@pytest.mark.parametrize(
    ("text", "cores"),
    [("max 100000", None), ("150000 100000", 1), ("50000 100000", 1), ("99900000 100000", None), ("?", None)],
)  # fmt: skip
def test_a_container_s_share_of_time_counts_as_cores(tmp_path, text, cores):
    nobody_rations = available_cores(tmp_path / "no such file")
    quota = tmp_path / "cpu.max"
    quota.write_text(text)
    assert nobody_rations >= 1
    assert available_cores(quota) == (cores or nobody_rations)


# Whose error it is


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        (RuntimeError("CUDA failed with error out of memory at /src/x.cc:12"), "ran out of memory"),
        (ValueError("prompt: expected 2 dimensions"), "the model failed on this audio"),
        (MemoryError(), "the model failed on this audio"),
    ],
)
async def test_the_library_s_errors_become_ours_without_its_words(ears, monkeypatch, raised, said):
    def listen(_decoder, _samples, **_how):
        raise raised

    monkeypatch.setattr(type(ears.engine.decoder), "listen", listen)
    with pytest.raises(Failed, match=said) as failed:
        await ears.hear(SECOND)
    assert not any(word in failed.value.message for word in ("CUDA", "x.cc", "dimensions"))


async def test_a_folder_is_served_under_the_name_it_is_given(tmp_path):
    place: Path = find_model("tiny.en", cache_dir=tmp_path).path
    async with open_engine(Options(model=str(place), model_name="mine")) as engine:
        assert engine.model.name == "mine"
        assert str(engine.model.revision).startswith("sha256-")
        assert engine.languages == {"en"}
