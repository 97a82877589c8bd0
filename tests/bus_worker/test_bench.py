"""The bench runs and sums up rightly; what it finds is nobody's pass or fail."""

import itertools
import json
import statistics
from pathlib import Path

import pytest

from bus_worker.bench import claims, load, main, start
from bus_worker.bench.report import percentile, spread, table


def test_a_schedule_is_the_same_for_a_seed_and_asks_for_its_share():
    jobs = load.schedule(0.8, 300, seed=3)
    assert jobs == load.schedule(0.8, 300, seed=3)
    assert jobs != load.schedule(0.8, 300, seed=4)
    assert all(a.at < b.at for a, b in itertools.pairwise(jobs))
    asked = sum(job.seconds for job in jobs) / 300 / load.WORKERS
    assert asked == pytest.approx(0.8, rel=0.05)


def test_the_ideal_queue_gives_each_request_the_first_worker_that_is_free():
    jobs = [load.Job(0.0, 1.0), load.Job(0.1, 0.3), load.Job(0.2, 1.0), load.Job(2.0, 1.0)]
    assert load.one_queue(jobs, workers=2) == pytest.approx([0.0, 0.0, 0.2, 0.0])
    assert statistics.fmean(load.one_queue(jobs, workers=4)) == 0


def test_percentiles_are_values_that_were_found():
    values = [float(n) for n in range(1, 101)]
    assert (percentile(values, 0.5), percentile(values, 0.99)) == (50, 99)
    assert percentile([7.0], 0.99) == 7
    assert spread([0.001, 0.003], 0.5) == {"mean ms": 2.0, "p50 ms": 1.0}


def test_a_table_can_be_pasted_into_a_page():
    assert table([{"how": "a", "ms": 1.5}, {"how": "bbb", "ms": 10}]).splitlines() == [
        "| how | ms  |",
        "|-----|-----|",
        "| a   | 1.5 |",
        "| bbb | 10  |",
    ]


def test_an_unknown_section_is_wrong_usage(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as caught:
        main(["speed"])
    assert caught.value.code == 2
    assert "load, road, cache, claims, door, start" in capsys.readouterr().err


def report(path: Path, *arguments: str) -> dict:
    assert main([*arguments, "--quick", "--json", str(path)]) == 0
    return json.loads(path.read_text())


def test_the_road_is_measured_and_written_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr("bus_worker.bench.road.QUICK_COUNT", 16)
    monkeypatch.setattr("bus_worker.bench.road.WARM", 2)
    found = report(tmp_path / "new" / "road.json", "road")
    assert set(found) == {
        "date", "command", "machine", "load_average_before", "versions", "sections",
    }  # fmt: skip
    rows = found["sections"]["road"]["rows"]
    assert len(rows) == 8
    assert {row["how"] for row in rows} == {"client and worker", "bare request-reply"}
    assert all(0 < row["median ms"] <= row["p99 ms"] for row in rows)
    assert "| 300 KB" in capsys.readouterr().out


def test_the_cache_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("bus_worker.bench.cache.QUICK_COUNT", 16)
    monkeypatch.setattr("bus_worker.bench.cache.WARM", 4)
    rows = report(tmp_path / "cache.json", "cache")["sections"]["cache"]["rows"]
    assert [row["request"] for row in rows] == [
        "new, no cache", "repeated", "new", "new, Redis dead",
    ]  # fmt: skip
    assert all(0 < row["median ms"] <= row["p99 ms"] for row in rows)


def test_large_audio_is_measured_each_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(claims, "QUICK_COUNT", 2)
    monkeypatch.setattr(claims, "WARM", 1)
    rows = report(tmp_path / "claims.json", "claims")["sections"]["claims"]["rows"]
    found = [(row["clip"], row["how"].partition(",")[0]) for row in rows]
    ways = ["put", "get", "the road", "bare request-reply"]
    expected = [(clip, way) for clip in ("1 MB", "5 MB", "10 MB") for way in ways]
    assert found == expected[:-1]  # 10 MB are more than a message takes
    assert all(0 < row["median ms"] <= row["p95 ms"] for row in rows)


@pytest.mark.soak
def test_load_is_measured_and_no_request_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(load, "QUICK_TURN", 1.0)
    rows = report(tmp_path / "load.json", "load")["sections"]["load"]["rows"]
    assert len(rows) == 6
    for load_, turns in load.LOADS:
        jobs = sum(len(load.schedule(load_, 1.0, load.SEED + turn)) for turn in range(turns))
        assert {row["requests"] for row in rows if row["load"] == f"{load_:.0%}"} == {jobs}


@pytest.mark.soak
def test_start_and_memory_are_measured_without_real_speech_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(start, "SPEECH", tmp_path / "none.wav")
    found = report(tmp_path / "start.json", "start")["sections"]["start"]
    assert "noise" in found["notes"]
    assert {row["unit"] for row in found["rows"]} == {"s", "MB"}
    assert all(row["median"] > 0 for row in found["rows"])


def test_the_gateway_is_measured_beside_the_bus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("bus_worker.bench.door.QUICK_COUNT", 8)
    monkeypatch.setattr("bus_worker.bench.door.WARM", 2)
    rows = report(tmp_path / "door.json", "door")["sections"]["door"]["rows"]
    hows = ["bus", "HTTP, a form", "HTTP, the audio alone", "HTTP, known"]
    assert [row["how"] for row in rows] == hows
    assert all(0 < row["median ms"] <= row["p99 ms"] for row in rows)
    assert rows[-1]["requests/s"] > 0
