"""What is known of a job, as plain data."""

import pytest

from bus_worker.errors import BadAudio, Failed
from bus_worker.job_record import JobEvent, JobRecord, JobStatus
from bus_worker.messages import Segment, error_to_map, pack, unpack

SEGMENT = Segment(0, 0, 0.0, 1.0, "one", [1], -0.1, 0.0, 1.0, 0.0)


def record(**more: object) -> JobRecord:
    return JobRecord(**{"job_id": "j", "status": "queued", "model": "m", **more})


def test_a_record_survives_the_wire():
    was = record(status="running", claim={"id": "x", "chunks": 2}, done=b"\x05", windows=3)
    assert JobRecord.from_map(unpack(pack(was.to_map()))) == was


def test_keys_of_a_later_version_are_ignored_and_missing_ones_are_not():
    assert JobRecord.from_map({**record().to_map(), "later": 1}) == record()
    with pytest.raises(Failed, match="one version"):
        JobRecord.from_map({"job_id": "j"})


@pytest.mark.parametrize(
    "wrong",
    [
        {"job_id": 1}, {"status": "gone"}, {"status": []}, {"windows": "3"}, {"sequence": None},
        {"deaths": "x"}, {"done": "text"}, {"claim": [1]}, {"created_at": "now"}, {"told": 1},
    ],
    ids=str,
)  # fmt: skip
def test_what_is_of_another_type_cannot_be_read(wrong):
    with pytest.raises(Failed, match="cannot be read"):
        JobRecord.from_map({**record().to_map(), **wrong})


def test_a_whole_number_stands_for_a_time_too():
    assert JobRecord.from_map({**record().to_map(), "created_at": 7}).created_at == 7


def test_what_is_shown_holds_nothing_of_the_audio_or_of_who_is_told():
    shown = record(claim={"id": "secret"}, webhook="https://secret", reply_to="secret").shown()
    assert type(shown) is JobStatus
    assert "secret" not in repr(shown.to_map())


@pytest.mark.parametrize(
    ("status", "final"),
    [("queued", False), ("running", False), ("done", True), ("failed", True), ("cancelled", True)],
)
def test_three_states_are_never_left(status, final):
    assert record(status=status).final is final
    assert JobEvent(1, "j", status, 0.0).final is final


def test_a_bit_says_whether_a_window_is_done():
    was = record(done=b"\x05\x80")
    assert [n for n in range(40) if was.is_done(n)] == [0, 2, 15]


def test_a_failed_job_raises_why():
    failure = record(status="failed", error=error_to_map(BadAudio("noise"))["error"]).failure()
    assert (type(failure), failure.message) == (BadAudio, "noise")
    assert type(record(status="failed").failure()) is Failed


def test_an_event_survives_the_wire_and_gets_its_id_there():
    was = JobEvent(0, "j", "running", 0.5, window=2, segments=[SEGMENT])
    read = JobEvent.from_map(7, unpack(pack(was.to_map())))
    assert (read.id, read.window, read.segments, read.at) == (7, 2, [SEGMENT], was.at)


@pytest.mark.parametrize("data", [{}, {"job_id": "j", "status": "done"}, {"segments": [1]}])
def test_an_event_that_cannot_be_read_is_said(data):
    with pytest.raises(Failed, match="cannot be read"):
        JobEvent.from_map(1, data)
