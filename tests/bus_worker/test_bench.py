"""The bench runs and sums up rightly; what it finds is nobody's pass or fail."""

import itertools
import json
import statistics
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from bus_worker.bench import claims, engines, load, main, start
from bus_worker.bench.clips import Clip, read_clips
from bus_worker.bench.engines import OURS, STOCK, STOCK_DEFAULTS, Heard
from bus_worker.bench.report import percentile, spread, table
from bus_worker.bench.verdict import compared, counted, rate, times_agree
from bus_worker.errors import SetupError


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
    assert "load, road, cache, claims, door, jobs, spread, start" in capsys.readouterr().err


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


# The engine against faster-whisper


def spoken(number: int, text: str = "nobody knows the trouble I have seen") -> Clip:
    return Clip(f"clip {number}", b"", text, "en", 4.0)


def heard(text: str, *words: tuple[str, float, float]) -> Heard:
    return Heard(text, "en", list(words))


def write_manifest(folder: Path, *rows: dict) -> Path:
    for row in rows:
        (folder / row["file"]).write_bytes(b"sound")
    (folder / "manifest.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


def test_a_manifest_gives_the_clips_that_fit(tmp_path: Path):
    row = {"text": "hello", "language": "en", "seconds": 3.0}
    place = write_manifest(
        tmp_path,
        row | {"file": "a.wav"},
        row | {"file": "long.wav", "seconds": 31.0},
        row | {"file": "copy.wav", "kind": "derived"},
        row | {"file": "silent.wav", "text": ""},
        row | {"file": "b.wav", "language": "de", "id": "b"},
    )
    everything = read_clips(place, longest=30, languages=None)
    assert [(clip.name, clip.language) for clip in everything] == [("a.wav", "en"), ("b", "de")]
    assert [c.name for c in read_clips(place, longest=30, languages=frozenset({"de"}))] == ["b"]
    with pytest.raises(SetupError, match="no clip with a text, of 1 s or less"):
        read_clips(place, longest=1, languages=None)


def test_a_folder_gives_audio_with_the_text_beside_it(tmp_path: Path):
    (tmp_path / "a.wav").write_bytes(start.murmur(1.0))
    (tmp_path / "a.txt").write_text("mumble mumble\n")
    (clip,) = read_clips(tmp_path, longest=30, languages=None)
    assert (clip.name, clip.text, clip.seconds) == ("a.wav", "mumble mumble", 1.0)


@pytest.mark.parametrize("what", ["nowhere", "broken.jsonl"])
def test_what_is_no_manifest_is_one_sentence(tmp_path: Path, what: str, capsys):
    (tmp_path / "broken.jsonl").write_text("{")
    assert main(["accuracy", str(tmp_path / what), "--json", str(tmp_path / "j")]) == 1
    assert "not a manifest of one JSON object a line" in capsys.readouterr().err


def test_a_manifest_that_names_a_file_that_is_not_there_says_so(tmp_path: Path):
    (tmp_path / "manifest.jsonl").write_text('{"file": "gone.wav", "text": "hello"}')
    with pytest.raises(SetupError, match=r"a row's file is not there: .*gone\.wav"):
        read_clips(tmp_path, longest=30, languages=None)


def test_a_setting_without_a_value_is_wrong_usage(tmp_path: Path, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["accuracy", str(tmp_path), "--set", "WHISPER__VAD"])
    assert caught.value.code == 2
    assert "'WHISPER__VAD' is no VARIABLE=VALUE" in capsys.readouterr().err


def test_errors_are_counted_with_spelling_and_numbers_made_alike():
    clips = [spoken(1, "Mr. Brown said: the colour is twenty"), spoken(2)]
    texts = {"clip 1": heard("mister brown said the color is 20"), "clip 2": heard("nobody knows")}
    first, second = counted(clips, texts)
    assert (first.wrong, second.wrong, second.words) == (0, 5, 7)
    assert rate([first, second]) == 5 / (first.words + 7)


def test_a_difference_in_every_clip_is_no_noise_and_one_in_one_clip_is():
    clips = [spoken(n) for n in range(20)]
    right = counted(clips, {clip.name: heard(clip.text) for clip in clips})
    wrong = counted(
        clips, {clip.name: heard("nobody sees the trouble I have seen") for clip in clips}
    )
    verdict = compared(clips, right, wrong)
    assert verdict.difference == pytest.approx(-1 / 7)
    assert verdict.low <= verdict.high < 0
    assert (verdict.better, verdict.worse, verdict.ruined) == (20, 0, [])
    one = compared(clips, [*right[:-1], wrong[-1]], right)
    assert one.low == 0 < one.high


def test_a_clip_that_became_unreadable_is_named():
    clips = [spoken(1)]
    well, ill = (counted(clips, {"clip 1": heard(text)}) for text in (clips[0].text, "what"))
    assert compared(clips, ill, well).ruined == ["clip 1"]
    assert compared(clips, well, ill).ruined == []


def test_times_are_compared_for_words_that_both_heard():
    ours = {"a": heard("", (" one", 0.0, 0.4), (" two", 0.5, 0.9), (" three", 1.0, 1.4))}
    theirs = {"a": heard("", (" one", 0.05, 0.5), (" too", 0.5, 0.9), (" three", 1.0, 1.55))}
    assert times_agree(ours, theirs) == (1, 2)


def test_engines_are_compared_in_turns_and_written_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    asked: list[tuple[str, str | None]] = []

    def engine(name: str, text: str) -> engines.Engine:
        async def hear(clip: Clip, language: str | None, words: bool) -> Heard:  # noqa: FBT001
            asked.append((name, language))
            return heard(text, *([(text, 0.0, 1.0)] if words else []))

        return hear

    @asynccontextmanager
    async def opened(*_: object) -> AsyncIterator[dict[str, engines.Engine]]:
        yield {name: engine(name, "hello" if name == OURS else "hallo") for name in (OURS, STOCK, STOCK_DEFAULTS)}  # fmt: skip

    monkeypatch.setattr("bus_worker.bench.accuracy.opened", opened)
    row = {"text": "hello", "seconds": 3.0}
    place = write_manifest(
        tmp_path, *(row | {"file": f"{n}.wav", "language": "en" if n else "de"} for n in range(30))
    )
    path = tmp_path / "out.json"
    assert main(["accuracy", str(place), "--at-once", "1,2", "--words", "--json", str(path)]) == 0
    found = json.loads(path.read_text())["sections"]
    assert set(found) == {"speed", "accuracy", "times of words"}
    speed, accuracy = found["speed"]["rows"], found["accuracy"]["rows"]
    assert len(speed) == 3 * 2 * 2
    assert all(row["x real time"] > 0 for row in speed)
    assert [(row["clips"], row["language"], row["our errors %"], row["stock's %"], row["better"]) for row in accuracy] == [
        (clips, language, 0.0, 100.0, number)
        for language in ("given", "detected")
        for clips, number in (("English, 29", 29), ("other languages, 1", 1))
    ]  # fmt: skip
    assert [name for name, _ in asked[:72:24]] == [OURS, STOCK, STOCK_DEFAULTS]
    assert [name for name, _ in asked[72:90:6]] == [STOCK, STOCK_DEFAULTS, OURS]
    assert {language for _, language in asked} == {"en", "de", None}


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


def test_jobs_are_measured_beside_requests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("bus_worker.bench.jobs.CROWDS", ((1, 2),))
    monkeypatch.setattr("bus_worker.bench.jobs.WARM", 2)
    rows = report(tmp_path / "jobs.json", "jobs")["sections"]["jobs"]["rows"]
    assert [row["how"] for row in rows] == ["job, to its result", "request"]
    assert all(0 < row["median ms"] <= row["p99 ms"] for row in rows)
    assert all(row["a second"] > 0 for row in rows)


def test_a_recording_is_spread_over_more_and_more_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("bus_worker.bench.spread.CROWDS", (1, 2))
    rows = report(tmp_path / "spread.json", "spread")["sections"]["spread"]["rows"]
    assert [row["workers"] for row in rows] == [1, 2]
    assert rows[0]["seconds"] > 1, "eleven windows of a tenth of a second, one after the other"
    assert rows[0]["x as fast as one"] == 1
