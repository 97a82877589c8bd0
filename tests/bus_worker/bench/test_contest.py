"""`bus-worker bench` measures who it names and keeps what it found; the figures are nobody's pass or fail."""

import json
import xml.etree.ElementTree as ET
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from bus_worker.bench import contest, seat
from bus_worker.bench.clips import Clip
from bus_worker.bench.contenders import VIA, Setup
from bus_worker.bench.contest import Run, Wanted, need, spaced
from bus_worker.bench.engines import Heard
from bus_worker.errors import SetupError
from tests.helpers.clips import manifest
from tests.helpers.shell import shell

SHORT = ("lj001-0011", "ls-test-other-1688-142285-0002", "ls-test-other-1998-15444-0008")


@pytest.fixture
def place(speech: Path, tmp_path: Path) -> Path:
    """A folder of three short clips with their texts beside them."""
    folder = tmp_path / "clips"
    folder.mkdir()
    for name in SHORT:
        row = manifest(speech)[name]
        (folder / Path(row["file"]).name).write_bytes((speech / row["file"]).read_bytes())
        (folder / f"{Path(row['file']).stem}.txt").write_text(row["text"])
    return folder


def clip(name: str, seconds: float = 1.0) -> Clip:
    return Clip(name, b"", "a", "en", seconds)


@pytest.mark.timeout(300)
async def test_all_are_measured_in_one_run_and_what_was_found_is_kept(place: Path, tmp_path: Path):
    path = tmp_path / "found" / "figures.json"
    ended = await shell(
        "bench", str(place), "--at-once", "1", "--language", "given", "--against", "same,batched",
        "--model", "tiny.en", "--most", "2", "--json", str(path), cwd=tmp_path, limit=280,
    )  # fmt: skip
    assert ended.status == 0, ended.err
    found = json.loads(path.read_text())
    rows = found["sections"]["speed"]["rows"]
    names = [*VIA.values(), "faster-whisper, same replicas", "faster-whisper, batched pipeline"]
    assert [row["who"] for row in rows] == names
    for row in rows:
        assert row["failed"] == 0
        assert row["errors %"] < 50
        assert 0 < row["p50 ms"] <= row["p95 ms"] <= row["p99 ms"]
        assert row["peak MB"] == "" or row["peak MB"] > 50
    assert {each["who"] for each in found["heard"]} == set(names)
    assert all(len(each["texts"]) == 2 for each in found["heard"])
    assert "95 %" in found["sections"]["accuracy"]["rows"][0]
    assert ET.parse(path.with_suffix(".svg")).getroot().tag.endswith("svg")  # noqa: S314 - our own
    assert path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    assert str(path.with_suffix(".svg")) in ended.out


async def test_what_a_contender_cannot_hear_is_counted_and_the_run_goes_on(place: Path):
    (place / "broken.wav").write_bytes(b"RIFF" + bytes(100))
    (place / "broken.txt").write_text("nothing")
    files = sorted(f"{name}.flac" for name in SHORT)
    clips = [clip(name) for name in files]
    (place / "manifest.jsonl").write_text(
        "".join(
            json.dumps({"file": name, "text": "x", "seconds": 1}) + "\n"
            for name in [*files, "broken.wav"]
        )
    )
    setup = await contest.prepared("tiny.en", None, replicas=1)
    run = Run()
    async with seat.seated(VIA["engine"], setup, Wanted(str(place))) as sitting:
        await sitting.hear([*clips, clip("broken.wav")], 2, told=True, into=run)
    assert set(run.heard) == {*files, "broken.wav"}
    assert list(run.failed) == ["broken.wav"]
    assert "BadAudio" in run.failed["broken.wav"]
    assert run.requests == len(run.each) == 4


async def test_a_contender_that_dies_ends_the_run_in_a_sentence(place: Path):
    wanted = Wanted(str(place))
    setup = await contest.prepared("tiny.en", None, replicas=1)
    async with seat.seated(VIA["engine"], setup, wanted) as sitting:
        sitting._process.kill()
        await sitting._process.wait()
        with pytest.raises(SetupError, match="engine alone: ended without a word"):
            await sitting.hear(wanted.read(), 1, told=True, into=Run())


async def test_a_contender_that_cannot_open_ends_the_run_with_its_words(place: Path):
    setup = Setup(str(place), "none", options={"WHISPER__BEAM_SIZE": "99"})
    with pytest.raises(SetupError, match=r"engine alone: WHISPER__BEAM_SIZE='99'"):
        async with seat.seated(VIA["engine"], setup, Wanted(str(place))):
            pass


async def test_a_place_without_clips_is_one_sentence(tmp_path: Path):
    ended = await shell("bench", str(tmp_path), cwd=tmp_path)
    assert ended.status == 1
    assert "no clip with a text" in ended.sentence


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--via", "radio"], "'radio' is not some of engine, bus, http"),
        (["--at-once", "0"], "'0' is not a whole number above 0"),
        (["--set", "beam"], "'beam' is not VARIABLE=VALUE"),
    ],
)
async def test_wrong_usage_is_one_sentence(arguments: list[str], says: str, tmp_path: Path):
    ended = await shell("bench", ".", *arguments, cwd=tmp_path)
    assert ended.status == 2
    assert says in ended.sentence


def test_a_library_that_is_missing_is_named_with_what_to_install():
    need("json")
    with pytest.raises(SetupError, match=r"needs nolib, .*bus-worker\[.*bench\]"):
        need("json", "nolib")


def test_some_clips_are_taken_evenly():
    clips = [clip(str(n)) for n in range(10)]
    assert [one.name for one in spaced(clips, 4)] == ["0", "2", "5", "7"]
    assert spaced(clips, None) == spaced(clips, 99) == clips


class Quiet:
    """A seat that writes down who heard what, when."""

    def __init__(self, who: str, log: list[tuple[str, int]]) -> None:
        self.who, self.log = who, log

    async def hear(self, clips, at_once, *, told, into):  # noqa: ARG002 - as the real one
        self.log.append((self.who, len(clips)))
        into.requests += len(clips)
        into.heard |= {one.name: Heard("a", "en", []) for one in clips}
        into.each += [0.1] * len(clips)
        into.wall += 1.0


@pytest.mark.parametrize(
    ("clips", "at_once", "turns"),
    [(3, 1, [3]), (3, 8, [18]), (8, 1, [2, 2, 2, 2]), (99, 8, [24, 25, 25, 25]), (60, 32, [120])],
)
async def test_all_hear_the_same_each_time_another_first_and_enough_for_every_caller(
    clips: int, at_once: int, turns: list[int]
):
    log: list[tuple[str, int]] = []
    sitting = {who: Quiet(who, log) for who in "abc"}
    runs = await contest._in_turns(
        sitting, [clip(str(n)) for n in range(clips)], at_once, told=True
    )
    orders = ("abc", "bca", "cab", "abc")
    assert log == [(who, size) for order, size in zip(orders, turns, strict=False) for who in order]
    assert {run.requests for run in runs.values()} == {sum(turns)}


async def test_each_number_at_once_is_tried_with_the_language_given_and_detected(
    place: Path, monkeypatch: pytest.MonkeyPatch
):
    names = list(VIA.values())

    @asynccontextmanager
    async def seats(_: contest.Contest) -> AsyncIterator[dict[str, Quiet]]:
        yield {who: Quiet(who, []) for who in names}

    monkeypatch.setattr(contest, "_seats", seats)
    asked = contest.Contest(
        Wanted(str(place)), Setup("path", "tiny.en"), against=(), at_once=(1, 2)
    )
    found = await contest.measure(asked, lambda _: None)
    tried = [(row["who"], row["at once"], row["language"]) for row in found.sections["speed"].rows]
    assert tried == [(n, k, how) for how in ("given", "detected") for k in (1, 2) for n in names]
