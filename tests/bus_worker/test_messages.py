"""The wire: maps in, maps out, hostile bytes refused."""

import contextlib

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus_worker import errors
from bus_worker.messages import (
    ModelInfo,
    Segment,
    Timings,
    Transcript,
    Word,
    error_to_map,
    map_to_error,
    pack,
    segment_to_map,
    unpack,
    unpack_hostile,
)

SEGMENT = Segment(
    id=0, seek=0, start=0.0, end=1.5, text=" hello", tokens=[1, 2], confidence=-0.123,
    no_speech_prob=0.01, compression_ratio=1.1, temperature=0.0,
    words=[Word("hello", 0.0, 1.5, 0.9)],
)  # fmt: skip
TRANSCRIPT = Transcript(
    request_id="r", text="hello", language="en", language_probability=0.9, duration=1.5,
    segments=[SEGMENT], model=ModelInfo("base", "abc"), timings=Timings(0.1, {"decode": 0.2}, 0.3, 0.4),
    real_time_factor=0.2, worker_id="w", warnings=["x"],
)  # fmt: skip


def test_a_transcript_survives_the_wire():
    assert Transcript.from_map(unpack(pack(TRANSCRIPT.to_map()))) == TRANSCRIPT


def test_words_are_left_out_where_none_were_asked_for():
    silent = Segment.from_map({**segment_to_map(SEGMENT), "words": None})
    assert "words" not in segment_to_map(silent)
    assert Segment.from_map(segment_to_map(silent)).words is None


def test_keys_of_a_newer_worker_are_ignored():
    data = TRANSCRIPT.to_map() | {"mood": "good"}
    data["segments"][0]["speaker"] = 1
    data["model"]["size"] = 5
    data["timings"]["gpu"] = 1
    data["segments"][0]["words"][0]["speaker"] = 1
    assert Transcript.from_map(data) == TRANSCRIPT


@pytest.mark.parametrize("key", ["text", "segments", "model", "timings"])
def test_a_reply_without_its_keys_is_no_transcript(key):
    data = TRANSCRIPT.to_map()
    del data[key]
    with pytest.raises(errors.Failed, match="not a transcript"):
        Transcript.from_map(data)


@pytest.mark.parametrize("read", [unpack, lambda payload: unpack_hostile(payload, 1000)])
@pytest.mark.parametrize(
    "payload",
    [
        b"", b"\xc1", b"hello", b"\x91" * 10_000 + b"\xc0", b"\xdb\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff", pack({"a": 1}) + b"\x00", msgpack.packb([1]), msgpack.packb({1: 2}),
        msgpack.packb({b"\xff": 1}), b"\x81\xa1\xff\x01", bytes(9_000_000),
    ],
)  # fmt: skip
def test_what_is_no_map_of_texts_is_a_bad_request(payload, read):
    with pytest.raises(errors.BadRequest, match="msgpack"):
        read(payload)


@given(st.binary(max_size=400))
def test_any_bytes_are_a_map_or_a_bad_request(payload):
    with contextlib.suppress(errors.BadRequest):
        assert unpack_hostile(payload, 1000) == unpack(payload)


def test_a_stranger_may_send_many_bytes_but_few_things():
    audio = bytes(1_000_000)
    assert unpack_hostile(pack({"audio": audio, "a": [1, 2]}), 100) == {"audio": audio, "a": [1, 2]}
    with pytest.raises(errors.BadRequest, match="too large besides its audio"):
        unpack_hostile(pack({"audio": audio, "a": [1] * 200}), 100)
    with pytest.raises(errors.BadRequest, match="too large besides its audio"):
        unpack_hostile(pack({"a": [1] * 60, "b": [1] * 60}), 100)


def test_errors_survive_the_wire():
    error = errors.AudioTooLong("40 s, the limit is 30 s", duration=40.0, maximum=30.0)
    back = map_to_error(error_to_map(error)["error"], status=400)
    assert type(back) is errors.AudioTooLong
    assert back.message == error.message
    assert back.details == error.details


def test_an_error_that_only_a_newer_worker_knows_keeps_its_code():
    back = map_to_error({"code": "on_fire", "message": "m", "retry": True}, status=418)
    assert (back.code, back.status, back.retry, back.message) == ("on_fire", 418, True, "m")


@given(
    st.dictionaries(st.text(), st.one_of(st.none(), st.integers(), st.text(), st.lists(st.text())))
)
def test_any_error_map_becomes_an_error(data):
    assert isinstance(map_to_error(data), errors.BusWorkerError)
