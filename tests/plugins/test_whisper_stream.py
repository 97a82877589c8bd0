"""Streaming: a longer clip comes an utterance at a time, and loses nothing by it."""

import itertools
from collections.abc import Iterator
from typing import Any

import jiwer
import numpy as np
import pytest

from bus_worker.errors import Cancelled
from bus_worker.messages import Segment
from bus_worker.plugin import Draft
from plugins.whisper.utterances import CUT_OVER
from tests.helpers.clips import clip, english_normalizer, manifest, words
from tests.helpers.hearing import Ears, opened

LONG = "ls-test-other-2033-164914-0006"
"""17 s, one sentence with pauses of a quarter of a second."""
SHORT = "ls-test-other-1688-142285-0002"


@pytest.fixture(scope="module")
def ears() -> Iterator[Ears]:
    with opened(replicas=2) as ears:
        yield ears


@pytest.fixture
def happened(ears: Ears, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the decoder listens to ("heard", seconds), and segments as they are sent."""
    log: list[Any] = []
    real = type(ears.engine.decoder).listen

    def listen(decoder: Any, samples: np.ndarray, **how: Any) -> Any:
        log.append(len(samples) / 16_000)
        return real(decoder, samples, **how)

    monkeypatch.setattr(type(ears.engine.decoder), "listen", listen)
    return log


def text(draft: Draft) -> str:
    return "".join(segment.text for segment in draft.segments)


async def test_a_longer_clip_comes_an_utterance_at_a_time(ears, speech, happened):
    samples = clip(speech, LONG)
    whole = await ears.hear(samples, language="en")
    assert len(happened) == 1
    happened.clear()
    streamed = ears.draft(samples, stream=True, on_segment=happened.append, language="en")
    await ears.run(streamed)
    heard = [event for event in happened if isinstance(event, float)]
    sent = [event for event in happened if isinstance(event, Segment)]
    assert len(heard) > 1
    assert isinstance(happened[1], Segment), "the first utterance is sent before the next is heard"
    assert sent == streamed.segments
    assert [segment.id for segment in sent] == list(range(len(sent)))
    for before, after in itertools.pairwise(sent):
        assert before.end <= after.start
    assert sent[-1].end <= streamed.duration
    assert jiwer.wer(words(text(whole)), words(text(streamed))) < 0.25


async def test_a_short_clip_is_heard_whole_and_sent(ears, speech, happened):
    draft = ears.draft(clip(speech, SHORT), stream=True, on_segment=happened.append, language="en")
    await ears.run(draft)
    assert [type(event) for event in happened] == [float, Segment]


async def test_without_vad_nothing_of_the_clip_is_left_out(ears, speech, happened):
    samples = clip(speech, LONG)
    await ears.run(ears.draft(samples, stream=True, language="en", vad=False))
    assert len(happened) > 1
    assert sum(happened) == pytest.approx(len(samples) / 16_000)


async def test_the_language_is_detected_once(ears, speech, monkeypatch):
    asked = []
    real = type(ears.engine.decoder).detect

    def detect(*arguments: Any) -> Any:
        asked.append(real(*arguments))
        return asked[-1]

    monkeypatch.setattr(type(ears.engine.decoder), "detect", detect)
    draft = await ears.run(ears.draft(clip(speech, LONG), stream=True))
    assert [language.code for language in asked] == ["en"]
    assert draft.language == "en"


async def test_nobody_decodes_what_the_caller_no_longer_wants(ears, speech, happened):
    draft = ears.draft(clip(speech, LONG), stream=True, language="en")

    def hang_up(segment: Segment) -> None:
        happened.append(segment)
        draft.give_up()

    draft.on_segment = hang_up
    with pytest.raises(Cancelled):
        await ears.run(draft)
    assert [type(event) for event in happened] == [float, Segment]


@pytest.mark.soak
@pytest.mark.timeout(1800)
async def test_streaming_costs_no_accuracy(ears, speech, happened, capsys):
    """The word error rate of both ways on the same clips: English, 8 to 30 s, as recorded."""
    normal = english_normalizer()
    rows = [
        row
        for row in manifest(speech).values()
        if row["language"] == "en" and row["text"] and row["kind"] == "original"
        and CUT_OVER < row["seconds"] <= 30
    ]  # fmt: skip
    said = [normal(row["text"]) for row in rows]
    heard: dict[bool, list[str]] = {False: [], True: []}
    for stream, row in itertools.product(heard, rows):
        draft = ears.draft(clip(speech, row["id"]), stream=stream, language="en")
        await ears.run(draft)
        heard[stream].append(normal(text(draft)))
    whole, streamed = (jiwer.wer(said, heard[stream]) for stream in (False, True))
    each = [(jiwer.wer(s, w), jiwer.wer(s, t)) for s, w, t in zip(said, heard[False], heard[True], strict=True)]  # fmt: skip
    with capsys.disabled():
        print(  # noqa: T201 - a soak's figures are what it is run for
            f"\n{len(rows)} clips: word error rate whole {whole:.2%}, streamed {streamed:.2%};"
            f" better {sum(t < w for w, t in each)}, worse {sum(t > w for w, t in each)};"
            f" {(len(happened) - len(rows)) / len(rows):.2f} pieces a clip"
        )
    assert streamed <= whole + 0.01
