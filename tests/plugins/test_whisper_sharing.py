"""One model under several requests: what is decoded together reads as if each had been alone."""

import asyncio
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from bus_worker.errors import Cancelled
from bus_worker.plugin import Draft, Samples
from tests.helpers.clips import clip
from tests.helpers.hearing import Ears, opened

SECOND = 16_000
SURE: dict[str, Any] = {"temperature": 0.0}
"""At a higher temperature the decoder throws dice."""


@pytest.fixture(scope="module")
def ears() -> Iterator[Ears]:
    with opened(model="tiny.en", replicas=1, batch=4, vad=False) as ears:
        yield ears


@pytest.fixture(scope="module")
def voices(speech: Path) -> list[Samples]:
    """Four parts of a speech, of one length, so that they fit together."""
    whole = clip(speech, "jfk-flac")
    return [whole[begin * SECOND : (begin + 3) * SECOND] for begin in (0, 3, 5, 8)]


def said(draft: Draft) -> list[dict[str, Any]]:
    return [asdict(segment) for segment in draft.segments]


def most_together(ears: Ears) -> int:
    return max(ears.engine.decoder.model.decoding.sizes)


async def test_a_worker_has_room_for_what_its_replicas_decode_together(ears: Ears):
    assert ears.engine.slots == 4


async def test_what_is_decoded_together_reads_as_if_alone(ears: Ears, voices: list[Samples]):
    alone = [said(await ears.hear(voice, word_timestamps=True, **SURE)) for voice in voices]
    assert most_together(ears) == 1
    crowd = await asyncio.gather(
        *(ears.hear(voice, word_timestamps=True, **SURE) for voice in voices)
    )
    assert most_together(ears) > 1
    assert max(draft.notes["batch"] for draft in crowd) == most_together(ears)
    calls = [int(rows) for draft in crowd for rows in draft.notes["calls"].split(",") if rows]
    assert max(calls) == most_together(ears)
    assert {"encode", "decode"} <= set(crowd[0].spans)
    assert [said(draft) for draft in crowd] == alone
    assert len({str(words) for words in alone}) == len(voices)


async def test_what_is_asked_otherwise_is_decoded_for_itself(ears: Ears, voices: list[Samples]):
    asked: list[dict[str, Any]] = [
        {**SURE, "beam_size": 1}, {**SURE, "beam_size": 2}, {**SURE, "prompt": "Ships."}, SURE,
    ]  # fmt: skip
    alone = [said(await ears.hear(voices[1], **one)) for one in asked]
    before = ears.engine.decoder.model.decoding.sizes.copy()
    crowd = await asyncio.gather(*(ears.hear(voices[1], **one) for one in asked))
    assert [said(draft) for draft in crowd] == alone
    assert set(ears.engine.decoder.model.decoding.sizes - before) == {1}


async def test_who_leaves_while_waiting_for_company_costs_the_others_nothing(
    ears: Ears, voices: list[Samples]
):
    alone = [said(await ears.hear(voice, **SURE)) for voice in voices]
    drafts = [ears.draft(voice, **SURE) for voice in voices]
    runs = [asyncio.create_task(ears.run(draft)) for draft in drafts]
    await asyncio.sleep(0)
    drafts[2].give_up()
    ended = await asyncio.gather(*runs, return_exceptions=True)
    assert isinstance(ended[2], Cancelled)
    kept = [n for n in range(4) if n != 2]
    assert [said(drafts[n]) for n in kept] == [alone[n] for n in kept]
