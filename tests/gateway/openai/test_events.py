"""The events of a stream: each utterance as it is decoded, and at the end the whole text."""

from bus_worker.cache.memory import MemoryCache
from bus_worker.client import TranscribeClient
from bus_worker.plugin import Draft, NoOptions, stage
from bus_worker.testing import pretend
from gateway.openai.events import events
from gateway.openai.schemas import Delta, Done
from plugins.tidy import tidy
from tests.helpers.house import Workers


@stage(needs=("text",), gives=("text",))
async def sign(draft: Draft, _: NoOptions) -> None:
    """Add to the text what no segment says."""
    draft.text += " -- the house"


@stage(needs=("text",), gives=("text",))
async def shout(draft: Draft, _: NoOptions) -> None:
    """Write the text anew."""
    draft.text = draft.text.upper()


async def told(client: TranscribeClient) -> tuple[list[str], Done]:
    """The deltas of one request and its last event."""
    *deltas, done = [event async for event in events(client.stream(b"clip"))]
    assert isinstance(done, Done)
    assert all(isinstance(event, Delta) for event in deltas)
    return [event.delta for event in deltas if isinstance(event, Delta)], done


async def test_deltas_together_are_the_text_of_done(workers: Workers):
    await workers.start(pretend, tidy, segments=3, seconds=0.01)
    deltas, done = await told(await workers.client())
    assert deltas == ["part 0", " part 1", " part 2"]
    assert done.text == "".join(deltas) == "part 0 part 1 part 2"
    assert [language.code for language in done.languages] == ["en"]


async def test_a_known_answer_streams_the_same(workers: Workers):
    await workers.start(pretend, tidy, cache=MemoryCache(), segments=2, seconds=0.01)
    client = await workers.client()
    first = await told(client)
    stream = client.stream(b"clip")
    assert [event async for event in events(stream)] == [
        *(Delta(delta=delta) for delta in first[0]), first[1],
    ]  # fmt: skip
    assert stream.transcript is not None
    assert stream.transcript.cache_hit


async def test_what_no_segment_said_comes_as_a_last_delta(workers: Workers):
    await workers.start(pretend, tidy, sign, seconds=0.01)
    deltas, done = await told(await workers.client())
    assert deltas == ["part 0", " -- the house"]
    assert done.text == "part 0 -- the house"


async def test_a_text_written_anew_is_told_by_done(workers: Workers):
    await workers.start(pretend, tidy, shout, seconds=0.01)
    deltas, done = await told(await workers.client())
    assert (deltas, done.text) == (["part 0"], "PART 0")
